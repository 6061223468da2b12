"""Changes between the steps of `compile_step`, schedulers of torch among them, take effect at the next one."""

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


def test_a_scheduler_that_cycles_momentum_is_followed():
    module, other = twins("mlp")
    for one, compiled in ((module, True), (other, False)):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.5, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=6)
        step = compile_step(one, F.cross_entropy, optimizer)
        for i in range(4):
            step(*data(seed=i)) if compiled else plain_step(one, F.cross_entropy, optimizer, *data(seed=i))
            scheduler.step()
    torch.testing.assert_close(flat(module), flat(other), rtol=1e-4, atol=1e-5)


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
