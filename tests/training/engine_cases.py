"""What tests of compiled steps inside `fit` share: models, rows, twins trained compiled and eagerly, comparisons."""

import numpy as np
import torch
from torch import nn

import fanin
from fanin import optimizers
from fanin.layers import BatchNormalization, Dense, Dropout

ROWS, BATCH = 10, 4  # the last batch has 2 rows
EPS = torch.finfo(torch.float32).eps


def programs(model):
    """The programs of a model; all its steps were compiled."""
    found = list(model._compiled_with.engine._programs.values())
    assert found
    assert None not in found
    return found


def close_to_nothing(model):
    """All that training may change: weights, and the state of the optimizer."""
    return [one.detach().clone() for one in [*model.parameters(), *model.buffers()]]


def same_bits(one, two):
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second), (first, second)
        assert first.grad is None
        assert not first.is_inference()
    for first, second in zip(one.buffers(), two.buffers(), strict=True):
        assert torch.equal(first, second), (first, second)
    a, b = one.optimizer, two.optimizer
    if isinstance(a, optimizers.Optimizer):
        assert (a.iterations, a._iterations) == (b.iterations, b._iterations)
        for x, y in zip(a.get_state(list(one.parameters())), b.get_state(list(two.parameters())), strict=True):
            np.testing.assert_array_equal(x, y)


def flat(model):
    return torch.cat([one.detach().double().flatten() for one in [*model.parameters(), *model.buffers()]])


def near(one, two, exact, eps=EPS):
    """Both are about equally far from float64: not twice as far as the other, but for a few roundings."""
    no_further(one, two, exact, eps)
    no_further(two, one, exact, eps)


def no_further(one, two, exact, eps=EPS):
    """The first is not twice as far from float64 as the second, but for a few roundings."""
    floor = 4 * eps * exact.norm()
    first, second = (one - exact).norm(), (two - exact).norm()
    assert first <= 2 * second + floor, (first, second, floor)


def simple(policy="float32", rate=0.3, start=None):
    fanin.config.set_dtype_policy(policy)
    model = fanin.Sequential([fanin.Input((6,)), Dense(5, "tanh"), Dropout(rate), Dense(3, "softmax")])
    if start is not None:
        model.set_weights(start)
    fanin.config.set_dtype_policy(None)
    return model


def rows(seed=0, count=ROWS):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 6)).astype("float32"), rng.integers(0, 3, size=count)


def network():
    return fanin.Sequential(
        [
            fanin.Input((6,)),
            Dense(8, "tanh", name="first"),
            Dropout(0.2, name="thinned"),
            nn.Dropout(0.1),
            BatchNormalization(momentum=0.5, name="normal"),
            Dense(8, "relu", name="second", kernel_regularizer="l2"),
            Dense(3, "softmax", name="last"),
        ]
    )


class Twins:
    """A model trained compiled and one trained eagerly, from the same weights."""

    def __init__(self, optimizer, make=network, loss="sparse_categorical_crossentropy"):
        self.models = [make(), make()]
        self.models[1].set_weights(self.models[0].get_weights())
        for model, run_eagerly in zip(self.models, (False, True), strict=True):
            model.compile(optimizer(model), loss, run_eagerly=run_eagerly)

    def step(self, count=2, seed=0):
        found = []
        for model in self.models:
            fanin.utils.set_random_seed(5)
            found.append([model.train_on_batch(*rows(seed + i, 4)) for i in range(count)])
        assert found[0] == found[1]
        same_bits(*self.models)
        return found[0]

    def change(self, function):
        for model in self.models:
            fanin.utils.set_random_seed(6)
            function(model)
