"""Dropout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fanin
from fanin.layers import Dense, Dropout, Input, Layer

X = torch.full((200, 300), 3.0)


@pytest.mark.parametrize("arguments", [{}, {"seed": 1}, {"noise_shape": (None, None)}])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_fraction_and_scale(rate, arguments):
    found = Dropout(rate, **arguments)(X, training=True)
    kept = found != 0
    torch.testing.assert_close(found[kept], torch.full_like(found[kept], 3 / (1 - rate)))
    five_sigma = 5 * math.sqrt(rate * (1 - rate) / X.numel())
    assert abs(kept.double().mean().item() - (1 - rate)) < five_sigma


@pytest.mark.parametrize("arguments", [{}, {"seed": 1}])
def test_rates_of_0_and_1(arguments):
    assert Dropout(0, **arguments)(X, training=True) is X
    x = torch.ones(3, 4, requires_grad=True)
    found = Dropout(1, **arguments)(x, training=True)
    assert not found.any()
    assert not torch.autograd.grad(found.sum(), x)[0].any()


def test_the_gradient_is_that_of_the_kept():
    for arguments in ({}, {"seed": 1}):
        x = torch.ones(50, 50, requires_grad=True)
        found = Dropout(0.5, **arguments)(x, training=True)
        (gradient,) = torch.autograd.grad(found.sum(), x)
        assert torch.equal(gradient, found.detach())


@pytest.mark.parametrize("given", [True, False])
def test_what_is_given_wins_over_the_mode(given):
    layer = Dropout(0.5)
    layer.train(not given)
    assert torch.equal(layer(X, training=given), X) != given


def test_the_enclosing_call_wins_over_the_mode():
    class Around(Layer):
        def __init__(self):
            super().__init__()
            self.inner = Dropout(0.5)

        def call(self, inputs):
            return self.inner(inputs)

    layer = Around()
    layer.inner.eval()
    assert not torch.equal(layer(X, training=True), X)
    layer.inner.train()
    assert torch.equal(layer(X, training=False), X)


def test_in_a_model_only_training_drops():
    model = fanin.Sequential([Input((300,)), Dropout(0.5), Dense(1, use_bias=False, kernel_initializer="ones")])
    assert torch.equal(model(X), torch.full((200, 1), 900.0))
    assert model(X, training=True).unique().numel() > 10
    model.compile("sgd", "mse")
    before = model.predict(X)
    model.fit(X, torch.zeros(200, 1), epochs=1, verbose=0)
    assert not np.array_equal(model.predict(X), before)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), None, "a", True])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match="Dropout: rate must be"):
        Dropout(rate)


@pytest.mark.parametrize("shape", ["abc", 3, (0, 1), (-1,), (1.5,), (True,)])
def test_bad_noise_shapes(shape):
    with pytest.raises(ValueError, match="Dropout: noise_shape must be"):
        Dropout(0.5, shape)


@pytest.mark.parametrize("shape", [(1,), (None, 1, 1), (None, 7), (5, None)])
def test_noise_shapes_that_do_not_fit(shape):
    layer = Dropout(0.5, shape, name="mine")
    with pytest.raises(ValueError, match=r"Layer 'mine': noise_shape=.*\(200, 300\)"):
        layer(X, training=True)
    assert layer(X, training=False) is X


def test_noise_shape_is_kept_as_a_tuple():
    layer = Dropout(0.5, [None, np.int64(1)])
    assert layer.noise_shape == (None, 1)
    assert layer.get_config()["noise_shape"] == [None, 1]


def test_infinite_inputs_that_are_dropped_leave_no_nan():
    found = Dropout(0.5, seed=1)(torch.full((1, 100), math.inf), training=True)
    assert set(found.flatten().tolist()) == {0.0, math.inf}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(dtype):
    for arguments in ({}, {"seed": 1}):
        assert (
            Dropout(0.5, dtype=dtype, **arguments)(X, training=True).dtype == fanin.layers.Layer(dtype=dtype)._compute
        )
