"""What functions of one's own read beside their arguments: changes of it take effect, and calls that change it run
eagerly."""

import argparse
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from compile_step_cases import plain_step
from torch import nn

import fanin
from fanin import compile_step
from fanin.training.backoff import Backoff
from fanin.training.guards.references import References

FACTOR = 1.0
FACTORS = [1.0]
OPTIONS = argparse.Namespace(factor=1.0)
COUNT = 0
SEEN = []


def reset():
    globals().update(FACTOR=1.0, COUNT=0)
    FACTORS[:] = [1.0]
    OPTIONS.factor = 1.0
    SEEN.clear()


@pytest.fixture(autouse=True)
def as_before():
    yield
    reset()


def by_global(outputs, targets):
    return F.cross_entropy(outputs, targets) * FACTOR


def by_list(outputs, targets):
    return F.cross_entropy(outputs, targets) * FACTORS[0]


def by_options(outputs, targets):
    return F.cross_entropy(outputs, targets) * OPTIONS.factor


def by_another(outputs, targets):
    return 2 * by_global(outputs, targets)


def counting(outputs, targets):
    global COUNT
    COUNT += 1
    return F.cross_entropy(outputs, targets) * COUNT


def noting(outputs, targets):
    SEEN.append(len(SEEN))
    return F.cross_entropy(outputs, targets) * len(SEEN)


class Scaling(nn.Module):
    """A module whose forward reads a global variable by a method of its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def scaled(self, x):
        return x * FACTOR

    def forward(self, x):
        return self.scaled(self.linear(x))


def set_global():
    globals()["FACTOR"] = 3.0


def set_list():
    FACTORS[0] = 3.0


def set_options():
    OPTIONS.factor = 3.0


def losses(make, loss, change, compiled):
    torch.manual_seed(0)
    module = make()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    step = compile_step(module, loss, optimizer)
    found = []
    for number in range(4):
        if number == 2:
            change()
        x, y = torch.randn(8, 6, generator=torch.Generator().manual_seed(number)), torch.arange(8) % 3
        found.append(step(x, y) if compiled else plain_step(module, loss, optimizer, x, y))
    return torch.stack(found), len(step.programs)


@pytest.mark.parametrize(
    ("make", "loss", "change"),
    [
        (lambda: nn.Linear(6, 3), by_global, set_global),
        (lambda: nn.Linear(6, 3), by_list, set_list),
        (lambda: nn.Linear(6, 3), by_options, set_options),
        (lambda: nn.Linear(6, 3), by_another, set_global),
        (Scaling, F.cross_entropy, set_global),
    ],
)
def test_changes_take_effect(make, loss, change):
    compiled, programs = losses(make, loss, change, True)
    reset()
    eager, _ = losses(make, loss, change, False)
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)
    assert programs == 1


def test_a_variable_of_a_closure():
    found = []
    for compiled in (True, False):
        factor = 1.0

        def loss(outputs, targets):
            return F.cross_entropy(outputs, targets) * factor  # noqa: B023 - this is what is tested

        def change():
            nonlocal factor
            factor = 3.0

        found.append(losses(lambda: nn.Linear(6, 3), loss, change, compiled)[0])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_a_hook_that_keeps_what_it_sees():
    kept = {}
    module = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    module[1].register_forward_hook(lambda part, given, output: kept.update(output=output.detach()))
    step = compile_step(module, F.cross_entropy, torch.optim.SGD(module.parameters(), lr=0.1))
    x = torch.randn(8, 6)
    with pytest.warns(UserWarning, match="what is in the attribute 'kept'"):
        step(x, torch.arange(8) % 3)
    assert type(kept["output"]) is torch.Tensor
    assert kept["output"].shape == (8, 4)


@pytest.mark.parametrize(("loss", "what"), [(counting, "'COUNT'"), (noting, "'SEEN'")])
def test_calls_that_change_variables_run_eagerly(loss, what):
    with pytest.warns(UserWarning, match=what):
        compiled, programs = losses(lambda: nn.Linear(6, 3), loss, lambda: None, True)
    reset()
    eager, _ = losses(lambda: nn.Linear(6, 3), loss, lambda: None, False)
    assert torch.equal(compiled, eager)
    assert not programs


def test_what_functions_read():
    own = SimpleNamespace(factor=2.0, unread=1)

    def function(x):
        return x * own.factor * FACTOR + torch.ones(()).sum() + by_list.__name__.__len__()

    found = References([function])
    assert {name for _, name, _ in found.bindings} == {"FACTOR", "FACTORS", "factor"}  # by_list reads FACTORS
    assert [(name, value) for _, name, value in found.cells] == [("own", own)]


class Logging(nn.Module):
    """A module in which a training loop keeps numbers that calls do not read."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.losses, self.step, self.factor, self.offsets = [], 0, 1.0, [0.0]

    @property
    def offset(self):
        return self.offsets[0]

    def plot(self):
        return list(self.losses)

    def scaled(self, x):
        return x * self.factor + self.offset

    def forward(self, x):
        return self.scaled(self.linear(x))


class ByName(Logging):
    def scaled(self, x):
        return x * getattr(self, "fac" + "tor")


def test_only_what_calls_reach_counts():
    module = Logging()
    read = References([module])
    names = ("losses", "step", "factor", "offsets", "training")
    assert [read.reads(module, name) for name in names] == [False, False, True, True, True]
    assert References([ByName()]).reads(ByName(), "step")  # anything may be meant
    assert References([nn.Linear(1, 1)]).reads(nn.Linear(1, 1), "in_features")
    layer = type("Own", (fanin.layers.Dense,), {"__module__": "own"})(2)
    assert References([layer]).reads(layer, "activation")


def test_what_a_loop_keeps_in_a_module_does_not_count():
    module = Logging()
    step = compile_step(module, F.cross_entropy, torch.optim.SGD(module.parameters(), lr=0.1))
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    made = set()
    for _ in range(12):
        module.losses.append(step(x, y).item())
        module.step += 1
        made |= {id(program) for program in step.programs}
    assert len(made) == 1
    module.offsets[0] = 1.0
    with torch.no_grad():
        expected = F.cross_entropy(module(x), y)
    torch.testing.assert_close(step(x, y), expected)


def test_a_variable_that_changes_at_each_step():
    module = nn.Linear(6, 3)
    step = compile_step(module, by_global, torch.optim.SGD(module.parameters(), lr=0.1))
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    made = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(40):
            globals()["FACTOR"] = 1.0 + number
            with torch.no_grad():
                expected = by_global(module(x), y)
            torch.testing.assert_close(step(x, y), expected)
            made |= {id(program) for program in step.programs}
    assert len(made) <= 2
    (warning,) = caught
    assert f"'FACTOR' of the Python module {__name__!r} changes again and again" in str(warning.message)


def test_patience():
    patience = Backoff()
    assert patience.count_step()
    patience.note_change()
    assert patience.count_step()  # the first change is nothing
    waits = []
    for _ in range(8):
        patience.note_change()
        steps = 1
        while not patience.count_step():
            steps += 1
        waits.append(steps - 1)
    assert waits == [1, 2, 4, 8, 16, 32, 16, 32]  # 33 steps without a change make it more patient again


TEACHER = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))


def test_modes_of_a_module_that_a_loss_reaches():
    module = nn.Linear(6, 3)
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    TEACHER.eval()
    step = compile_step(
        module, lambda outputs, targets: (outputs - TEACHER(x)).square().mean(), torch.optim.SGD(module.parameters(), 0)
    )
    assert step(x, y) == step(x, y)
    TEACHER.train()
    assert step(x, y) != step(x, y)


def test_a_loss_that_names_its_own_model_keeps_the_programs_of_both_modes():
    model = fanin.Sequential(
        [fanin.Input((6,)), fanin.layers.Dense(4), fanin.layers.Dropout(0.5), fanin.layers.Dense(1)]
    )

    def loss(y_true, y_pred):
        return (y_true - y_pred).square().mean(-1) + 0.01 * model.layers[0].kernel.square().mean()

    model.compile("sgd", loss)
    x = torch.randn(16, 6)
    made = []
    for _ in range(4):
        model.fit(x, x[:, :1], batch_size=8, validation_data=(x, x[:, :1]), verbose=0)
        made.append({id(program) for program in model.programs})
    assert made[0] == made[-1]
