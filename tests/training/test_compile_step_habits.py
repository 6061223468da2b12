"""What PyTorch's users do in modules, losses and loops: a compiled step gives what the plain loop gives, in float64."""

import copy
import random
import re
import warnings
from collections import deque
from itertools import count

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compile_step_cases import plain_step
from torch import nn

import fanin
from fanin import compile_step

STEPS = 6


class Body(nn.Module):
    """A linear layer with what a case adds to it."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.setup()

    def setup(self):
        pass

    def forward(self, x):
        return self.linear(x)


class AssignsBuffer(Body):
    def setup(self):
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.linear(x - self.mean)


class AssignsBufferOfAnotherShape(Body):
    def setup(self):
        self.register_buffer("sum", torch.zeros(1))

    def forward(self, x):
        self.sum = self.sum.sum() + x.mean(0)
        return self.linear(x) * self.sum.mean()


class FillsEmptyBuffer(Body):
    def setup(self):
        self.register_buffer("mean", None)

    def forward(self, x):
        self.mean = x.mean(0) if self.mean is None else 0.5 * self.mean + x.mean(0)
        return self.linear(x - self.mean)


class SparseBuffer(Body):
    def setup(self):
        self.register_buffer("graph", torch.eye(8, dtype=torch.float64).flip(0).to_sparse())

    def forward(self, x):
        return torch.sparse.mm(self.graph, self.linear(x))


class SparseAttribute(Body):
    def setup(self):
        self.graph = torch.eye(8, dtype=torch.float64).flip(0).to_sparse()

    def forward(self, x):
        return torch.sparse.mm(self.graph, self.linear(x))


class ChangesInPlace(Body):
    def setup(self):
        self.mean = torch.zeros(6, dtype=torch.float64)  # no buffer

    def forward(self, x):
        self.mean.mul_(0.5).add_(x.mean(0))
        return self.linear(x - self.mean)


class KeepsInDict(Body):
    def setup(self):
        self.kept = {"mean": torch.zeros(6, dtype=torch.float64)}

    def forward(self, x):
        self.kept["mean"] = 0.5 * self.kept["mean"] + x.mean(0)
        return self.linear(x - self.kept["mean"])


class KeepsInList(Body):
    def setup(self):
        self.outputs = []

    def forward(self, x):
        self.outputs.append(self.linear(x))
        return self.outputs[-1]


class KeepsInSet(Body):
    def setup(self):
        self.seen = set()

    def forward(self, x):
        self.seen.add(len(self.seen))
        return self.linear(x) * len(self.seen)


class WeightsInList(Body):
    def setup(self):
        self.kernels = [self.linear.weight]

    def forward(self, x):
        return x @ self.kernels[0].t() + self.linear.bias


class ModulesInList(Body):
    def setup(self):
        self.rest = [nn.Linear(3, 3)]

    def forward(self, x):
        return self.rest[0](self.linear(x))


class DrawsByPython(Body):
    def forward(self, x):
        return self.linear(x) * (2.0 if random.random() < 0.5 else 1.0)


class DrawsByNumpy(Body):
    def forward(self, x):
        return self.linear(x) * float(np.random.rand())


class ClipsData(Body):
    def forward(self, x):
        self.linear.weight.data = self.linear.weight.data.clamp(-0.1, 0.1)
        return self.linear(x)


class ClipsInPlace(Body):
    def forward(self, x):
        self.linear.weight.data.clamp_(-0.1, 0.1)
        return self.linear(x)


class Scaled(nn.Module):
    """A loss with a weight, a buffer and an option."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("count", torch.zeros(()))
        self.power = 2

    def forward(self, outputs, targets):
        self.count += 1
        return F.cross_entropy(outputs * self.scale, targets) + self.scale**self.power / self.count


def reload(step, module, optimizer, loss, kept):
    if step == 2:
        kept.update(copy.deepcopy(optimizer.state_dict()))
    if step == 4:
        optimizer.load_state_dict(kept)


def clear(step, module, optimizer, loss, kept):
    if step == 3:
        optimizer.state.clear()


def add_group(step, module, optimizer, loss, kept):
    if step == 3:
        module.linear.bias.requires_grad_(False)
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 0.5})


def smooth(step, module, optimizer, loss, kept):
    if step == 3:
        loss.label_smoothing = 0.3


def weigh(step, module, optimizer, loss, kept):
    if step == 2:
        loss.weight.mul_(torch.tensor([3.0, 1.0, 1.0]))
    if step == 4:
        loss.weight = torch.tensor([9.0, 1.0, 1.0], dtype=torch.float64)


def change_power(step, module, optimizer, loss, kept):
    if step == 3:
        getattr(loss, "__self__", loss).power = 4


def change_list(step, module, optimizer, loss, kept):
    if step == 3:
        module.factors[0] = 5.0


class ReadsList(Body):
    def setup(self):
        self.factors = [1.0]

    def forward(self, x):
        return self.linear(x) * self.factors[0]


def nothing(step, module, optimizer, loss, kept):
    pass


def plain():
    return F.cross_entropy


def run(make, loss, change, compiled):
    """Losses, weights, state and warnings of some steps, and how many programs were made."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    module, loss = make().double(), loss()
    owner = loss if isinstance(loss, nn.Module) else getattr(loss, "__self__", nn.Module())
    owner.double()
    more = [one for part in getattr(module, "rest", []) for one in part.double().parameters()]
    optimizer = torch.optim.Adam([*module.parameters(), *owner.parameters(), *more], lr=0.05)
    step = compile_step(module, loss, optimizer) if compiled else None
    kept, found = {}, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(STEPS):
            change(number, module, optimizer, loss, kept)
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(8, 6, generator=generator, dtype=torch.float64)
            y = torch.randint(0, 3, (8,), generator=generator)
            found.append(plain_step(module, loss, optimizer, x, y) if step is None else step(x, y))
    tensors = [*module.parameters(), *module.buffers(), *owner.parameters(), *owner.buffers(), *more]
    tensors += [value for state in optimizer.state.values() for value in state.values()]
    numbers = torch.cat([one.detach().to_dense().double().reshape(-1) for one in (torch.stack(found), *tensors)])
    eager = [str(one.message) for one in caught if "eagerly" in str(one.message)]
    return numbers, eager, 0 if step is None else len(step.programs)


@pytest.mark.parametrize(
    ("make", "loss", "change"),
    [
        (Body, plain, reload),
        (Body, plain, clear),
        (Body, plain, add_group),
        (AssignsBuffer, plain, nothing),
        (ClipsInPlace, plain, nothing),
        (ReadsList, plain, change_list),
        (Body, nn.CrossEntropyLoss, smooth),
        (Body, lambda: nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0])), weigh),
        (Body, Scaled, change_power),
        (Body, lambda: Scaled().forward, change_power),
    ],
)
def test_compiled(make, loss, change):
    found, eager, programs = run(make, loss, change, True)
    torch.testing.assert_close(found, run(make, loss, change, False)[0], rtol=1e-11, atol=1e-11)
    assert not eager
    assert programs == 1


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (AssignsBufferOfAnotherShape, "puts something else in the place of 'sum'"),
        (FillsEmptyBuffer, "changes the attribute 'mean' of the module"),
        (ChangesInPlace, "changes a tensor in place that is no buffer"),
        (KeepsInDict, "what is in the attribute 'kept'"),
        (KeepsInList, "what is in the attribute 'outputs'"),
        (KeepsInSet, "what is in the attribute 'seen'"),
        (WeightsInList, r"the weight of shape \(3, 6\) by another way"),
        (ModulesInList, r"the weight of shape \(3, 3\) by another way"),
        (DrawsByPython, "random numbers that are not torch's"),
        (DrawsByNumpy, "random numbers that are not torch's"),
        (ClipsData, "other memory under a tensor"),
        (SparseBuffer, "storage of SparseTensorImpl"),
        (SparseAttribute, "cannot be compiled"),
    ],
)
def test_eager(make, why):
    found, eager, _ = run(make, plain, nothing, True)
    torch.testing.assert_close(found, run(make, plain, nothing, False)[0], rtol=1e-11, atol=1e-11)
    assert len(eager) == 1
    assert re.search(why, eager[0])


def test_a_loss_that_takes_a_weight_of_the_optimizer_from_elsewhere():
    factor = nn.Parameter(torch.ones(()))
    module = nn.Linear(6, 3)
    optimizer = torch.optim.SGD([*module.parameters(), factor], lr=0.1)
    step = compile_step(module, lambda outputs, targets: F.cross_entropy(outputs * factor, targets), optimizer)
    with pytest.warns(UserWarning, match=r"weight of shape \(\) by another way"):
        step(torch.randn(8, 6), torch.arange(8) % 3)
    assert factor.item() != 1
    assert factor.grad is None


class SwapsBuffers(Body):
    def setup(self):
        self.register_buffer("now", torch.zeros(6))
        self.register_buffer("before", torch.ones(6))

    def forward(self, x):
        self.before, self.now = self.now, self.before + x.mean(0)
        return self.linear(x - self.before)


class MakesTable(Body):
    def forward(self, x):
        if not hasattr(self, "table"):
            self.table = torch.linspace(0, 1, 3, dtype=torch.float64)
        return self.linear(x) * self.table


class KeepsInDeque(Body):
    def setup(self):
        self.last = deque([torch.zeros(6, dtype=torch.float64)], maxlen=1)

    def forward(self, x):
        self.last.append(0.5 * self.last[0] + x.mean(0))
        return self.linear(x - self.last[0])


class DrawsByGenerator(Body):
    def setup(self):
        self.drawn = np.random.default_rng(0)

    def forward(self, x):
        return self.linear(x) * self.drawn.random()


class Counts(Body):
    def setup(self):
        self.numbers = count(1)

    def forward(self, x):
        return self.linear(x) * next(self.numbers)


class AddsInPlace(Body):
    def setup(self):
        self.factor = torch.ones((), dtype=torch.float64)  # no buffer

    def forward(self, x):
        self.factor += 1
        return self.linear(x) * self.factor


def test_buffers_that_change_places():
    found, eager, programs = run(SwapsBuffers, plain, nothing, True)
    torch.testing.assert_close(found, run(SwapsBuffers, plain, nothing, False)[0], rtol=1e-11, atol=1e-11)
    assert not eager
    assert programs == 1


@pytest.mark.parametrize("make", [MakesTable, KeepsInDeque, DrawsByGenerator, Counts, AddsInPlace])
def test_what_calls_keep_is_left_as_it_was_by_tracing(make):
    found, eager, _ = run(make, plain, nothing, True)
    torch.testing.assert_close(found, run(make, plain, nothing, False)[0], rtol=1e-11, atol=1e-11)
    assert len(eager) == 1


def test_a_table_that_a_layer_makes_in_its_first_call():
    class Table(fanin.Layer):
        def call(self, inputs):
            if not hasattr(self, "table"):
                self.table = torch.linspace(0, 1, 3)
            return inputs * self.table

    model = fanin.Sequential([fanin.Input((4,)), fanin.layers.Dense(3, kernel_initializer="ones"), Table()])
    expected = np.tile([0.0, 2.0, 4.0], (2, 1))
    np.testing.assert_allclose(model.predict(np.ones((2, 4), "float32"), verbose=0), expected)
    np.testing.assert_allclose(model.predict(np.ones((2, 4), "float32"), verbose=0), expected)


def test_a_head_that_trains_on_a_backbone_in_eval_mode():
    found = []
    for compiled in (True, False):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), nn.Sequential(nn.Linear(4, 3)))
        module.eval()
        module[1].train()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        step = compile_step(module, F.cross_entropy, optimizer)
        x, y = torch.randn(8, 6), torch.arange(8) % 3
        if compiled:
            step(x, y)
        else:
            F.cross_entropy(module(x), y).backward()
            optimizer.step()
        found.append([one.detach().double() for one in [*module.parameters(), *module.buffers()]])
        assert [part.training for part in module] == [False, True]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["hook", "step"])
def test_hooks_of_an_optimizer_that_come_later(how):
    seen = []
    module = nn.Linear(6, 3)
    optimizer = torch.optim.Adam(module.parameters())
    step = compile_step(module, F.cross_entropy, optimizer)
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    step(x, y)
    if how == "hook":
        optimizer.register_step_post_hook(lambda *given: seen.append(1))
    else:
        own = optimizer.step
        optimizer.step = lambda *given: (seen.append(1), own(*given))
    step(x, y)
    step(x, y)
    assert len(seen) == 2


def test_a_loss_that_is_a_method_of_the_module():
    class Net(Body):
        def setup(self):
            self.alpha = 1.0

        def loss(self, outputs, targets):
            return F.cross_entropy(outputs, targets) * self.alpha

    module = Net()
    step = compile_step(module, module.loss, torch.optim.SGD(module.parameters(), lr=0.0))
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    before = step(x, y)
    module.alpha = 2.0
    torch.testing.assert_close(step(x, y), 2 * before)
