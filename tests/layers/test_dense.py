"""What Dense has beyond the contract: torch.nn.Linear both ways, drawing anew, the short way through a call."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import fanin
from fanin.layers import Dense


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_from_linear_and_back(bias, dtype):
    linear = nn.Linear(4, 3, bias=bias, dtype=dtype)
    x = torch.randn(5, 4, dtype=dtype)
    layer = Dense.from_linear(linear, name="mine")
    assert layer.name == "mine"
    assert layer.built
    assert layer.dtype == str(dtype).removeprefix("torch.")
    tolerance = 8 * torch.finfo(dtype).eps
    assert torch.allclose(layer(x), linear(x), rtol=tolerance, atol=tolerance)
    assert layer.kernel.is_contiguous()
    back = layer.to_linear()
    assert isinstance(back, nn.Linear)
    assert torch.equal(back.weight, linear.weight)
    with torch.no_grad():
        layer.kernel.zero_()
    assert torch.equal(back.weight, linear.weight)


@pytest.mark.parametrize("activation", ["relu", "gelu", "softmax", "leaky_relu", "squareplus", nn.PReLU(), torch.sin])
def test_to_linear_with_an_activation(activation):
    layer = Dense(3, activation)
    x = torch.randn(5, 4)
    y = layer(x)
    linear, function = layer.to_linear()
    assert isinstance(linear, nn.Linear)
    assert isinstance(function, nn.Module)
    assert torch.allclose(nn.Sequential(linear, function)(x), y, atol=1e-6)


def test_to_linear_needs_weights():
    with pytest.raises(ValueError, match="is not built"):
        Dense(3).to_linear()


def test_reset_parameters_draws_anew_in_place():
    layer = Dense(300, bias_initializer="ones")
    layer.reset_parameters()
    assert not layer.built
    layer.build((None, 40))
    kernel, before = layer.kernel, layer.kernel.detach().clone()
    with torch.no_grad():
        layer.bias.zero_()
    layer.reset_parameters()
    assert layer.kernel is kernel
    assert not torch.equal(layer.kernel, before)
    assert (layer.bias == 1).all()
    assert layer.kernel.abs().max() <= (6 / 340) ** 0.5


def test_a_layer_with_nothing_to_record_takes_the_short_way(monkeypatch):
    layer, busy = Dense(3), Dense(3, activity_regularizer="l1")
    x = torch.randn(2, 4)
    layer(x), busy(x)

    def refuse(*args):
        raise AssertionError("the long way")

    monkeypatch.setattr(Dense, "_call_on_tensors", refuse)
    assert layer(x).shape == (2, 3)
    assert layer(x[:, None]).shape == (2, 1, 3)
    for other in (x.double(), x[:, :3], x[0]):
        with pytest.raises(AssertionError, match="the long way"):
            layer(other)
    with pytest.raises(AssertionError, match="the long way"):
        busy(x)


def test_the_short_way_and_the_long_way_agree():
    layer = Dense(3, "tanh", dtype="float32")
    x = torch.randn(2, 4)
    long = layer(x)
    assert torch.equal(layer(x), long)
    assert torch.equal(layer(x, training=False), long)
    assert layer(x.double()).dtype == torch.float32
    with pytest.raises(ValueError, match="axis -1"):
        layer(torch.ones(2, 5))
    layer.double()
    for dtype in (torch.float64, torch.float32):
        assert layer(x.to(dtype)).dtype == torch.float64
    with pytest.raises(ValueError, match="min_ndim=2"):
        layer(torch.ones(4, dtype=torch.float64))


def test_there_is_no_short_way_where_a_call_has_to_record():
    layer = Dense(3, activity_regularizer="l1")
    for _ in range(3):
        layer(torch.ones(2, 4))
        assert len(layer.losses) == 1


def test_what_replaces_a_weight_takes_effect():
    layer = Dense(3, use_bias=False)
    x = torch.eye(4)
    layer(x)
    layer.kernel = nn.Parameter(torch.full((4, 3), 2.0))
    assert torch.equal(layer(x), torch.full((4, 3), 2.0))
    with torch.no_grad():
        layer.kernel.mul_(2)
    assert torch.equal(layer(x), torch.full((4, 3), 4.0))
    with pytest.raises(TypeError, match="cannot assign"):
        layer.kernel = torch.ones(4, 3)


def test_a_subclass():
    class Scaled(Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    layer = Scaled(3, input_shape=(4,))
    x = torch.randn(2, 4)
    assert torch.allclose(layer(x), 2 * (x @ layer.kernel), atol=1e-6)
    assert layer.name == "scaled"


def test_quantization_config_is_only_read_as_none():
    Dense(3, quantization_config=None)
    with pytest.raises(ValueError, match="quantization_config"):
        Dense(3, quantization_config={"mode": "int8"})


def test_an_activation_set_later_takes_effect():
    layer = Dense(3, input_shape=(2,))
    x = -torch.ones(4, 2)
    plain = layer(x)
    layer.activation = fanin.activations.relu
    assert torch.equal(layer(x), plain.relu())
    for none in (fanin.activations.linear, None, "linear"):
        layer.activation = none
        assert torch.equal(layer(x), plain)
    layer.activation = "tanh"
    assert torch.equal(layer(x), plain.tanh())
    assert layer.get_config()["activation"] == "tanh"
    with pytest.raises(ValueError, match="tahn"):
        layer.activation = "tahn"


def test_losses_of_an_activation_set_later_count():
    x = torch.ones(4, 2)
    layer = Dense(3)
    model = fanin.Sequential([fanin.Input((2,)), layer])
    for _ in range(2):
        model(x), layer(x)
    layer.activation = fanin.layers.ActivityRegularization(l2=0.5)
    assert torch.equal(layer(x), x @ layer.kernel)
    assert len(layer.losses) == 1
    model(x)
    assert len(model.losses) == 1
    layer.activation = "relu"
    assert torch.equal(layer(x), (x @ layer.kernel).relu())
    assert not layer.losses


def test_steps_stay_compiled_with_an_activation_set_later():
    model = fanin.Sequential([fanin.Input((2,)), Dense(3), Dense(1)])
    model.compile("sgd", "mse")
    for activation in (nn.Tanh(), "relu", fanin.layers.PReLU(), None):
        model.layers[0].activation = activation
        model.fit(torch.ones(4, 2), torch.ones(4, 1), verbose=0)  # a warning would say that it is not compiled


def test_a_print_shows_sizes_activation_and_name():
    layer = Dense(32, "relu", use_bias=False, name="hidden")
    assert repr(layer) == "Dense(32, activation=relu, use_bias=False, name='hidden')"
    layer(torch.ones(1, 16))
    assert repr(layer) == "Dense(16 -> 32, activation=relu, use_bias=False, name='hidden')"
    assert repr(Dense(2, nn.PReLU(), name="own")).startswith("Dense(\n  2, activation=PReLU, name='own'\n")


def test_a_kernel_larger_than_memory_says_how_much_it_needs():
    layer = Dense(10**9, name="wide")
    with pytest.raises(MemoryError, match=r"Weight 'kernel' of layer 'wide', .* needs 400,000\.0 GB"):
        layer(torch.ones(1, 10**5))
    assert not layer.built
    assert layer.weights == []


def test_an_activation_with_weights_is_built_with_the_layer():
    model = fanin.Sequential([fanin.Input((4,)), Dense(3, activation=fanin.layers.PReLU())])
    assert model.count_params() == 4 * 3 + 3 + 3


@pytest.mark.parametrize("activation", ["softmax", "log_softmax"])
def test_a_softmax_over_one_unit_warns_once(activation):
    layer = Dense(1, activation, name="kind")
    with pytest.warns(UserWarning, match="Layer 'kind': a softmax over one unit is the same for every input"):
        layer.build((None, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(layer(torch.randn(4, 3)).unique()) == 1  # as it says
        Dense(2, activation).build((None, 3))
        Dense(1, "sigmoid").build((None, 3))
