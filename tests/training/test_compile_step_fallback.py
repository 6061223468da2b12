"""`compile_step` where it cannot compile, where a step fails, and how many programs it keeps."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from compile_step_cases import MODULES, ByValue, data, plain_step
from engine_cases import flat
from torch import nn

import fanin
import fanin.program.run
from fanin import compile_step, optimizers
from fanin.training import program_cache


@pytest.mark.parametrize("optimizer", [lambda p: torch.optim.SGD(p, lr=0.1), lambda p: optimizers.SGD(0.1)])
def test_what_cannot_be_traced_runs_eagerly_and_says_so_once(optimizer):
    torch.manual_seed(0)
    module = ByValue()
    other = copy.deepcopy(module)
    step = compile_step(module, F.cross_entropy, optimizer(module.parameters()))
    plain = torch.optim.SGD(other.parameters(), lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(3):
            found = step(*data(seed=i))
            torch.testing.assert_close(found, plain_step(other, F.cross_entropy, plain, *data(seed=i)))
            step(*data(3, seed=i))
            plain_step(other, F.cross_entropy, plain, *data(3, seed=i))
    torch.testing.assert_close(flat(module), flat(other))
    assert len(caught) == 1
    assert "ByValue" in str(caught[0].message)
    assert "compile_step_cases.py" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert all(weight.grad is None for weight in module.parameters())


def test_a_warning_made_an_error_leaves_a_step_that_is_done():
    module = ByValue()
    step = compile_step(module, F.cross_entropy, "sgd")
    before = flat(module)
    with pytest.raises(UserWarning, match="eagerly"):
        step(*data())
    assert not torch.equal(before, flat(module))
    step(*data())


@pytest.mark.parametrize("first", [False, True])
def test_errors_are_those_of_the_loop_and_change_nothing(first):
    x, y = data()
    table = nn.Sequential(nn.Embedding(4, 6), nn.Flatten(), nn.Linear(12, 3))
    places = torch.tensor([[0, 1], [2, 3]])
    cases = [
        (MODULES["mlp"](), (x, y), (x, y + 5)),
        (MODULES["mlp"](), (x, y), (x[:, :4], y)),
        (MODULES["mlp"](), (x, y), (x, y[:3])),
        (MODULES["norms"](), (x, y), (x[:1], y[:1])),
        (table, (places, y[:2]), (places + 2, y[:2])),
    ]
    for module, good, bad in cases:
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        step = compile_step(module, F.cross_entropy, optimizer)
        if first:
            step(*good)
        before, state = (
            [w.detach().clone() for w in module.parameters()],
            copy.deepcopy(optimizer.state_dict()["state"]),
        )
        with pytest.raises(Exception) as expected:
            F.cross_entropy(copy.deepcopy(module).train()(bad[0]), bad[1])
        with pytest.raises(expected.type) as found:
            step(*bad)
        assert str(found.value) == str(expected.value)
        assert all(torch.equal(one, two) for one, two in zip(before, module.parameters(), strict=True))
        now = optimizer.state_dict()["state"]
        assert str(state) == str(now)
        step(*good)
        assert step.programs


def test_programs_by_signature_and_bounded(monkeypatch):
    made = []

    make = fanin.program.Program.__init__

    def counted(self, *given, **named):
        make(self, *given, **named)
        made.append(1)

    monkeypatch.setattr(fanin.program.Program, "__init__", counted)
    monkeypatch.setattr(program_cache, "_MOST_PROGRAMS", 2)
    step = compile_step(MODULES["mlp"](), F.cross_entropy, "sgd")
    for rows in (5, 5, 3, 5, 3, 4, 4):
        step(*data(rows))
    assert len(made) == 3
    assert len(step.engine._programs) == 2
    x, y = data(4)
    step(x.t().contiguous().t(), y)
    assert len(made) == 4
