"""Changes between the steps of `compile_step`, schedulers of torch among them, take effect at the next one."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from compile_step_cases import data, plain_step, twins
from engine_cases import flat
from torch import nn

from fanin import compile_step


def test_schedulers_of_torch_do_not_warn_and_are_followed():
    module, other = twins("mlp")
    runs = []
    for one, compiled in ((module, True), (other, False)):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.5, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        step = compile_step(one, F.cross_entropy, optimizer) if compiled else None
        for i in range(4):
            if compiled:
                step(*data(seed=i))
            else:
                plain_step(one, F.cross_entropy, optimizer, *data(seed=i))
            scheduler.step()
        runs.append((flat(one), scheduler.get_last_lr()))
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=1e-4, atol=1e-5)
    assert runs[0][1] == runs[1][1]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.1, maximize=True),
        lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, dampening=0.3),
        lambda p: torch.optim.Adam(p, lr=0.5),
        lambda p: torch.optim.Adam(p, lr=0.5, amsgrad=True, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.5, weight_decay=0.1, maximize=True),
        lambda p: torch.optim.AdamW([{"params": [*p][:2], "eps": 1e-3}, {"params": [*p][2:]}], lr=0.5, amsgrad=True),
    ],
)
def test_a_scheduler_that_cycles_momentum_is_followed(make):
    module, other = twins("mlp", torch.float64)
    found = []
    for one, compiled in ((module, True), (other, False)):
        optimizer = make([*one.parameters()])
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=9)
        step = compile_step(one, F.cross_entropy, optimizer)
        for i in range(8):
            batch = data(seed=i, dtype=torch.float64)
            step(*batch) if compiled else plain_step(one, F.cross_entropy, optimizer, *batch)
            scheduler.step()
        states = [value.reshape(-1) for state in optimizer.state.values() for value in state.values()]
        found.append((flat(one), torch.cat(states)))
        assert len(step.programs) == (2 if compiled else 0)  # with the momentum as a number, and as a tensor
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_a_weight_decay_that_changes_at_each_step(kind):
    found = []
    for one, compiled in zip(twins("mlp", torch.float64), (True, False), strict=True):
        optimizer = kind(one.parameters(), lr=0.1, **({"momentum": 0.9} if kind is torch.optim.SGD else {}))
        step = compile_step(one, F.cross_entropy, optimizer)
        for i in range(12):
            optimizer.param_groups[0]["weight_decay"] = 0.1 * (i % 5)
            batch = data(seed=i, dtype=torch.float64)
            step(*batch) if compiled else plain_step(one, F.cross_entropy, optimizer, *batch)
        found.append(flat(one))
        assert len(step.programs) == (2 if compiled else 0)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_momentum_that_comes_and_goes():
    found = []
    for one, compiled in zip(twins("mlp", torch.float64), (True, False), strict=True):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        step = compile_step(one, F.cross_entropy, optimizer)
        for i, momentum in enumerate((0, 0.9, 0.8, 0, 0, 0.7, 0.7)):
            optimizer.param_groups[0]["momentum"] = momentum
            batch = data(seed=i, dtype=torch.float64)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the step that makes the buffers may run eagerly
                step(*batch) if compiled else plain_step(one, F.cross_entropy, optimizer, *batch)
        found.append((flat(one), [state["momentum_buffer"] for state in optimizer.state.values()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def change_lr(module, optimizer):
    optimizer.param_groups[0]["lr"] = 0.7


def change_dropout(module, optimizer):
    module[1].p = 0.9


def change_hook(module, optimizer):
    module[0].register_forward_hook(lambda part, given, found: found * 0.5)


def change_module(module, optimizer):
    module[2] = nn.Tanh()


def change_state(module, optimizer):
    module.load_state_dict({name: value / 2 for name, value in module.state_dict().items()}, assign=True)
    optimizer.param_groups[0]["params"] = list(module.parameters())


def change_weights(module, optimizer):
    with torch.no_grad():
        module[0].weight.mul_(0.5)


def change_frozen(module, optimizer):
    module[0].requires_grad_(False)


def change_gradient_hook(module, optimizer):
    module[0].weight.register_hook(lambda gradient: gradient * 0.1)


def change_backward_hook(module, optimizer):
    module[3].register_full_backward_hook(lambda part, inputs, outputs: (inputs[0] * 0.1,))


def change_parametrization(module, optimizer):
    class Half(nn.Module):
        def forward(self, weight):
            return weight / 2

    nn.utils.parametrize.register_parametrization(module[3], "weight", Half())
    optimizer.param_groups[0]["params"] = list(module.parameters())


@pytest.mark.parametrize(
    "change",
    [
        change_lr,
        change_dropout,
        change_hook,
        change_module,
        change_state,
        change_weights,
        change_frozen,
        change_gradient_hook,
        change_backward_hook,
        change_parametrization,
    ],
)
def test_changes_take_effect_at_the_next_step(change):
    found = []
    for one, compiled in zip(twins("dropout"), (True, False), strict=True):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        step = compile_step(one, F.cross_entropy, optimizer)
        values = []
        for i in range(4):
            if i == 2:
                change(one, optimizer)
            torch.manual_seed(i)
            values.append(
                step(*data(seed=i)) if compiled else plain_step(one, F.cross_entropy, optimizer, *data(seed=i))
            )
        found.append((torch.stack(values), flat(one)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
