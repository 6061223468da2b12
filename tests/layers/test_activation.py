"""Activation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import fanin
from fanin import activations
from fanin.layers import Activation, Dense, Input, PReLU
from fanin.registry import deserialize, register_keras_serializable, serialize


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "softmax", "swish"])
def test_is_the_function(name):
    x = torch.randn(3, 4)
    assert torch.equal(Activation(name)(x), activations.get(name)(x))


def test_none_is_linear():
    x = torch.randn(3, 4)
    assert Activation(None)(x) is x
    assert Activation(None).get_config()["activation"] == "linear"


def test_integers_become_floats():
    found = Activation("relu")(torch.tensor([[-1, 2]]))
    assert found.tolist() == [[0.0, 2.0]]
    assert found.dtype == torch.float32


@pytest.mark.parametrize("activation", ["glu", lambda x: x[..., :2], lambda x: torch.cat([x, x], -1)])
def test_a_shape_that_changes_is_found(activation):
    layer = Activation(activation)
    size = layer(torch.ones(3, 4)).shape[-1]
    assert layer.compute_output_shape((None, 4)) == (None, size)
    assert layer(Input((4,))).shape == (None, size)


@pytest.mark.parametrize("make", [PReLU, lambda: nn.PReLU(), lambda: Dense(2)])
def test_a_layer_is_built_by_symbols_and_trains(make):
    layer = Activation(make())
    model = fanin.Sequential([Input((4,)), layer])
    assert model.count_params() == sum(p.numel() for p in layer.activation.parameters()) > 0
    out = model(torch.randn(3, 4))
    assert all(g is not None for g in torch.autograd.grad(out.sum(), list(layer.parameters()), allow_unused=True))


def test_config_of_a_registered_function():
    @register_keras_serializable(package="test_activation")
    def cube(x):
        return x**3

    layer = deserialize(serialize(Activation(cube)))
    assert layer.activation is cube


def test_errors():
    with pytest.raises(ValueError, match="relu"):
        Activation("rlu")
    with pytest.raises(TypeError, match="activation"):
        Activation(3)
    layer = Activation(lambda x: x, name="mine")
    with pytest.raises(ValueError, match="Layer 'mine', argument 'activation'"):
        layer.get_config()


def test_nothing_is_tried_for_known_functions(monkeypatch):
    """A trial costs over a second the first time; most models need none."""
    monkeypatch.setattr("fanin.layers.base.symbolic_call.infer_with_trial", None)
    assert Activation("softmax")(Input((4,))).shape == (None, 4)


def test_values_in_float64():
    x = torch.randn(5, dtype=torch.float64).reshape(1, 5)
    expected = [[0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x[0].tolist()]]
    torch.testing.assert_close(Activation("gelu", dtype="float64")(x), torch.tensor(expected, dtype=torch.float64))
