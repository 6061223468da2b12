"""Constraints and updates after each step of a plain PyTorch loop."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

import fanin
from fanin.layers import Dense, Layer


def step(model, optimizer, x):
    optimizer.zero_grad()
    model(x).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.AdamW])
def test_constraints_hold_after_each_step_of_any_optimizer(kind):
    model = nn.Sequential(Dense(3, kernel_constraint="non_neg"), nn.Linear(3, 2))
    fanin.constrain(model, {"1.weight": lambda w: w.clamp(-0.1, 0.1)})
    optimizer = kind(model.parameters(), lr=0.5)
    fanin.attach(optimizer, model)
    for _ in range(4):
        step(model, optimizer, torch.randn(8, 4))
        assert (model[0].kernel >= 0).all()
        assert (model[1].weight.abs() <= 0.1).all()


class Counts(Layer):
    def build(self, input_shape):
        self.calls = self.add_weight("calls", (), initializer="zeros", trainable=False)
        self.shift = self.add_weight("shift", (), initializer="zeros")

    def call(self, inputs):
        self.add_update((self.calls, self.calls + 1))
        return inputs + self.shift


@pytest.mark.parametrize(
    "wrap",
    [lambda a, b: fanin.Sequential([a, b]), nn.Sequential, lambda a, b: nn.ModuleDict({"a": nn.Sequential(a, b)})["a"]],
)
def test_updates_run_once_for_each_step(wrap):
    one, two = Counts(), Counts()
    model = wrap(one, two)
    model(torch.ones(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = fanin.attach(optimizer, model)
    for _ in range(3):
        step(model, optimizer, torch.ones(2))
    assert one.calls.item() == two.calls.item() == 3
    one.trainable = False
    two_only = torch.optim.SGD(two.parameters(), lr=0.1)
    fanin.attach(two_only, model)
    step(model, two_only, torch.ones(2))
    assert (one.calls.item(), two.calls.item()) == (3, 4)
    handle.remove()
    step(model, optimizer, torch.ones(2))
    assert two.calls.item() == 4


def test_the_order_is_optimizer_then_constraint_then_update():
    seen = []

    class Order(Dense):
        def call(self, inputs):
            self.add_update(lambda: seen.append(self.kernel.detach().clone()))
            return super().call(inputs)

    layer = Order(2, kernel_constraint=lambda w: torch.full_like(w, 7.0))
    layer(torch.ones(1, 3))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    fanin.attach(optimizer, layer)
    step(layer, optimizer, torch.ones(1, 3))
    assert [w.tolist() for w in seen] == [[[7.0, 7.0]] * 3]


def test_attaching_twice_gives_the_same_handle_and_removing_ends_it():
    layer = Dense(2, kernel_constraint="non_neg", kernel_initializer="ones")
    layer(torch.ones(1, 3))
    optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    handle = fanin.attach(optimizer, layer)
    assert fanin.attach(optimizer, layer) is handle
    handle.remove()
    step(layer, optimizer, torch.ones(1, 3))
    assert (layer.kernel < 0).all()
    again = fanin.attach(optimizer, layer)
    assert again is not handle
    step(layer, optimizer, torch.ones(1, 3))
    assert (layer.kernel >= 0).all()


def test_an_optimizer_does_not_keep_the_module_alive():
    layer = Dense(2, kernel_constraint="non_neg")
    other = Dense(2, input_shape=(3,))
    other(torch.ones(1, 3))
    optimizer = torch.optim.SGD(other.parameters(), lr=1.0)
    fanin.attach(optimizer, layer)
    reference = weakref.ref(layer)
    del layer
    gc.collect()
    assert reference() is None
    step(other, optimizer, torch.ones(1, 3))


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"expected a torch\.optim optimizer, found 'sgd'"):
        fanin.attach("sgd", Dense(2))
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        fanin.attach(torch.optim.SGD(nn.Linear(1, 1).parameters()), "model")
