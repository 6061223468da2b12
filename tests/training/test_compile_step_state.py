"""What calls read beside their inputs: changes of it take effect, and calls that change it run eagerly."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fanin

X, Y = torch.randn(6, 4), torch.randn(6, 4)


class Linear(nn.Module):
    """A module with something to train."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)


def compared(make, change=lambda module: None, warns=None):
    """Four steps, compiled and by PyTorch; `change` comes between. The losses and the weights agree."""
    torch.manual_seed(0)
    one = make()
    two = copy.deepcopy(one)
    step = fanin.compile_step(one, F.mse_loss, torch.optim.SGD(one.parameters(), 0.05))
    optimizer = torch.optim.SGD(two.parameters(), 0.05)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(4):
            if i == 2:
                change(one)
                change(two)
            torch.manual_seed(i + 1)
            found = float(step(X, Y))
            torch.manual_seed(i + 1)
            loss = F.mse_loss(two(X), Y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert found == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(one.state_dict(), two.state_dict())
    told = [str(one.message) for one in caught if "eagerly" in str(one.message)]
    assert len(told) == (warns is not None)
    assert warns is None or warns in told[0]
    return step


# --- changes between steps --------------------------------------------------------------------------------------------


class Scaled(Linear):
    """Reads an attribute of its class."""

    scale = 1.0

    def forward(self, x):
        return self.linear(x) * self.scale


class Asking(Linear):
    """Reads attributes that may not be there."""

    def forward(self, x):
        return self.linear(x) * getattr(self, "factor", 1.0) * (2.0 if hasattr(self, "is_doubled") else 1.0)


@dataclass
class Part:
    """Options within options."""

    factor: float = 1.0


@dataclass
class Options:
    """Options of a module."""

    part: Part = field(default_factory=Part)
    table: dict = field(default_factory=lambda: {"a": {"b": 1.0}})


class Deep(Linear):
    """Reads what lies deep in its attributes."""

    def __init__(self):
        super().__init__()
        self.options, self.parts, self.lists = Options(), [Part(), Part()], {"a": [[1.0, 2.0]]}

    def forward(self, x):
        deep = self.options.part.factor * self.options.table["a"]["b"] * self.parts[1].factor
        return self.linear(x) * deep * self.lists["a"][0][1]


def forward_of_a_part(module):
    module.linear.forward = lambda x: F.linear(x, module.linear.weight) * 2


def forward_of_itself(module):
    module.forward = lambda x: module.linear(x) * 2


def pruned(module):
    module.linear.weight.data = module.linear.weight.data[:2]
    module.linear.bias.data = module.linear.bias.data[:2]


class Repeating(Linear):
    """Takes any number of rows of its weight."""

    def forward(self, x):
        return self.linear(x).mean(1, keepdim=True).expand(-1, 4)


CHANGES = {
    "an attribute over one of the class": (Scaled, lambda module: setattr(module, "scale", 3.0)),
    "an attribute that was asked for": (Asking, lambda module: setattr(module, "factor", 3.0)),
    "an attribute that counts by being there": (Asking, lambda module: setattr(module, "is_doubled", True)),
    "the forward of a part": (Scaled, forward_of_a_part),
    "its own forward": (Scaled, forward_of_itself),
    "an object in an object": (Deep, lambda module: setattr(module.options.part, "factor", 3.0)),
    "a dict in a dict of an object": (Deep, lambda module: module.options.table["a"].update(b=3.0)),
    "an object in a list": (Deep, lambda module: setattr(module.parts[1], "factor", 3.0)),
    "a list in a list": (Deep, lambda module: module.lists["a"][0].__setitem__(1, 3.0)),
    "turned": (Scaled, lambda module: setattr(module.linear.weight, "data", module.linear.weight.data.t())),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_takes_effect_at_the_next_step(name):
    step = compared(*CHANGES[name])
    assert len(step.programs) == 1


def test_a_weight_that_becomes_a_part_of_itself():
    module = Repeating()
    step = fanin.compile_step(module, F.mse_loss, torch.optim.SGD(module.parameters(), 0.0))
    step(X, Y)
    pruned(module)
    assert float(step(X, Y)) == pytest.approx(F.mse_loss(module(X), Y).item())


def test_an_attribute_of_the_class(monkeypatch):
    module = Scaled()
    step = fanin.compile_step(module, F.mse_loss, torch.optim.SGD(module.parameters(), 0.0))
    step(X, Y)
    monkeypatch.setattr(Scaled, "scale", 2.0)
    assert float(step(X, Y)) == pytest.approx(F.mse_loss(module(X), Y).item())


def test_an_attribute_that_nobody_reads_changes_no_program():
    module = Scaled()
    step = fanin.compile_step(module, F.mse_loss, torch.optim.SGD(module.parameters(), 0.0))
    step(X, Y)
    program = step.programs[0]
    module.note = "seen"
    step(X, Y)
    assert step.programs == [program]


def test_predict_sees_them_too():
    part = Scaled()
    model = fanin.Sequential([fanin.Input((4,)), part])
    model.predict(X, verbose=0)
    for change in (lambda: setattr(part, "scale", 2.0), lambda: forward_of_itself(part)):
        change()
        torch.testing.assert_close(torch.as_tensor(model.predict(X, verbose=0)), model(X).detach())


# --- calls that change something ----------------------------------------------------------------------------------


class InList(Linear):
    """Changes a tensor in a list."""

    def __init__(self):
        super().__init__()
        self.kept = [torch.ones(4)]

    def forward(self, x):
        self.kept[0].add_(1)
        return self.linear(x) * self.kept[0]


class InDict(Linear):
    """Changes a tensor in a dict in a dict."""

    def __init__(self):
        super().__init__()
        self.kept = {"a": {"b": torch.ones(4)}}

    def forward(self, x):
        self.kept["a"]["b"].mul_(1.5)
        return self.linear(x) * self.kept["a"]["b"]


class Taught(Linear):
    """Averages its weights into a module that is none of its parts."""

    def __init__(self):
        super().__init__()
        self.__dict__["teacher"] = nn.Linear(4, 4)

    def forward(self, x):
        with torch.no_grad():
            for weight, own in zip(self.teacher.parameters(), self.linear.parameters(), strict=True):
                weight.mul_(0.9).add_(own * 0.1)
        return self.linear(x) + self.teacher(x).detach()


class HiddenAverages(Linear):
    """Keeps a normalization in a list."""

    def __init__(self):
        super().__init__()
        self.norms = [nn.BatchNorm1d(4)]

    def forward(self, x):
        return self.norms[0](self.linear(x))


class CountsInDict(Linear):
    """Counts its calls deep down."""

    def __init__(self):
        super().__init__()
        self.counts = {"a": {"calls": 0}}

    def forward(self, x):
        self.counts["a"]["calls"] += 1
        return self.linear(x) * self.counts["a"]["calls"]


class SeveralInto(Linear):
    """Writes two results into tensors that are given."""

    def forward(self, x):
        h = self.linear(x)
        with torch.no_grad():
            values, places = torch.sort(h, 1, out=(torch.empty_like(h), torch.empty(h.shape, dtype=torch.long)))
        return h * values + places


class ByItem(Linear):
    """Reads a tensor's value."""

    def __init__(self):
        super().__init__()
        self.factor = torch.tensor(1.0)

    def forward(self, x):
        return self.linear(x) * self.factor.item()


class ByArray(ByItem):
    """Reads it by numpy."""

    def forward(self, x):
        return self.linear(x) * float(self.factor.numpy())


IN_PLACE = "changes a tensor in place that is no buffer"
VALUE = "reads the value of a tensor that is no buffer"


@pytest.mark.parametrize(
    ("make", "warns"),
    [
        (InList, IN_PLACE),
        (InDict, IN_PLACE),
        (Taught, IN_PLACE),
        (HiddenAverages, IN_PLACE),
        (CountsInDict, "changes what is in the attribute 'counts'"),
        (SeveralInto, "writes several results"),
    ],
)
def test_a_call_that_changes_something_runs_eagerly(make, warns):
    compared(make, warns=warns)


@pytest.mark.parametrize("make", [ByItem, ByArray])
def test_a_call_that_reads_a_value_runs_eagerly(make):
    compared(make, lambda module: module.factor.fill_(2.0), warns=VALUE)


def test_a_class_that_counts():
    class Counting(Linear):
        calls = 0

        def forward(self, x):
            Counting.calls += 1
            return self.linear(x) * Counting.calls

    module = Counting()
    step = fanin.compile_step(module, F.mse_loss, torch.optim.SGD(module.parameters(), 0.05))
    with pytest.warns(UserWarning, match="changes the attribute 'calls' of the class Counting"):
        step(X, Y)
    step(X, Y)
    assert Counting.calls == 2


# --- random numbers -----------------------------------------------------------------------------------------------


class Checkpointed(nn.Module):
    """Computes its middle twice; with dropout, from the same random numbers."""

    def __init__(self, rate):
        super().__init__()
        self.first, self.second, self.rate = nn.Linear(4, 16), nn.Linear(16, 4), rate

    def middle(self, x):
        h = torch.tanh(self.first(x))
        return self.second(F.dropout(h, self.rate) if self.rate else h)

    def forward(self, x):
        return torch.utils.checkpoint.checkpoint(self.middle, x, use_reentrant=False)


class Seeding(Linear):
    """Draws the same numbers in every call."""

    def forward(self, x):
        torch.manual_seed(0)
        return self.linear(x) * torch.rand(4)


class Forking(Linear):
    """Likewise, and leaves the state as it was."""

    def forward(self, x):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            factor = torch.rand(4)
        return self.linear(x) * factor


class Making(Linear):
    """Draws from a generator that it makes."""

    def forward(self, x):
        return self.linear(x) * torch.rand(4, generator=torch.Generator().manual_seed(0))


class Holding(Linear):
    """Draws from a generator of its own, seeded in each call or not."""

    def __init__(self, seeds=False):
        super().__init__()
        self.generator, self.seeds = torch.Generator(), seeds

    def __deepcopy__(self, memo):
        other = Holding(self.seeds)
        other.load_state_dict(self.state_dict())
        return other

    def forward(self, x):
        if self.seeds:
            self.generator.manual_seed(0)
        return self.linear(x) * torch.rand(4, generator=self.generator)


@pytest.mark.parametrize(
    ("make", "warns"),
    [
        (lambda: Checkpointed(0.5), "as checkpoints do"),
        (lambda: Checkpointed(0.0), None),
        (Seeding, "seeds"),
        (Forking, "seeds them"),
        (Making, "makes a generator"),
        (lambda: Holding(seeds=True), "seeds torch's random numbers"),
        (Holding, None),
    ],
)
def test_random_numbers_of_a_call(make, warns):
    compared(make, warns=warns)


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.1), lambda p: fanin.optimizers.SGD(0.1)])
def test_hooks_after_a_gradient_was_accumulated(make):
    one = nn.Linear(4, 4)
    two, calls = copy.deepcopy(one), []

    def halve(weight):
        calls.append(weight)
        weight.grad.mul_(0.5)

    for module in (one, two):
        module.weight.register_post_accumulate_grad_hook(halve)
    step = fanin.compile_step(one, F.mse_loss, make(one.parameters()))
    optimizer = torch.optim.SGD(two.parameters(), 0.1)
    for _ in range(2):
        step(X, Y)
        optimizer.zero_grad()
        F.mse_loss(two(X), Y).backward()
        optimizer.step()
    assert len(calls) == 4
    torch.testing.assert_close(one.state_dict(), two.state_dict())


def test_the_same_tensor_twice_stands_for_two():
    module = nn.Linear(4, 4)
    step = fanin.compile_step(module, F.mse_loss, torch.optim.SGD(module.parameters(), 0.0))
    for x, y in ((X, X), (X, Y), (Y, Y)):
        assert float(step(x, y)) == pytest.approx(F.mse_loss(module(x), y).item())
    assert len(step.programs) == 1


def test_decay_that_is_decoupled_later():
    found = []
    for compiled in (True, False):
        torch.manual_seed(0)
        module = nn.Linear(4, 4)
        optimizer = torch.optim.Adam(module.parameters(), 0.1, weight_decay=0.5)
        step = fanin.compile_step(module, F.mse_loss, optimizer)
        for i in range(4):
            optimizer.param_groups[0]["decoupled_weight_decay"] = i >= 2
            if compiled:
                step(X, Y)
            else:
                optimizer.zero_grad()
                F.mse_loss(module(X), Y).backward()
                optimizer.step()
        found.append(module.state_dict())
    torch.testing.assert_close(*found)
