"""Rows 1 to 4: the product, its shapes, and how the size of the input becomes known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fanin
from fanin.layers import Dense

# float32: a sum of I products is off by at most about I units in the last place of the largest partial sum.
EPS = torch.finfo(torch.float32).eps


def reference(x: np.ndarray, layer: Dense) -> np.ndarray:
    """The product in float64, element by element over the last axis."""
    kernel = layer.kernel.detach().double().numpy()
    out = np.einsum("...i,iu->...u", x.astype(np.float64), kernel)
    return out if layer.bias is None else out + layer.bias.detach().double().numpy()


def bound(x: np.ndarray, layer: Dense) -> float:
    """The largest error that float32 sums of I + 1 terms can have."""
    terms = np.abs(x) @ layer.kernel.detach().abs().double().numpy()
    bias = 0.0 if layer.bias is None else layer.bias.detach().abs().max().item()
    return (x.shape[-1] + 2) * EPS * (terms.max() + bias)


@pytest.mark.parametrize("shape", [(5, 7), (1, 7), (0, 7), (3, 4, 7), (2, 3, 4, 7), (2, 1, 3, 2, 7)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_output_is_input_times_kernel_plus_bias(shape, use_bias):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    layer = Dense(3, use_bias=use_bias, bias_initializer="random_normal")
    y = layer(torch.tensor(x))
    assert y.shape == (*shape[:-1], 3)
    assert (layer.bias is None) == (not use_bias)
    if y.numel():
        assert np.abs(y.detach().numpy() - reference(x, layer)).max() <= bound(x, layer)


def test_the_activation_is_applied_to_each_element_after_the_bias():
    x = torch.randn(6, 4)
    linear = Dense(5, bias_initializer="ones", input_shape=(4,))
    linear.build((None, 4))
    bent = Dense(5, activation="relu", weights=linear.get_weights())
    assert torch.equal(bent(x), torch.where(linear(x) > 0, linear(x), 0.0))


@pytest.mark.parametrize("nothing", [None, "linear"])
def test_without_activation_it_is_linear(nothing):
    layer = Dense(2, activation=nothing, input_shape=(3,))
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.allclose(layer(a + b), layer(a) + layer(b) - layer.bias, atol=1e-6)
    assert (layer(-10 * torch.ones(1, 3)) == -10 * layer.kernel.sum(0) + layer.bias).all() or torch.allclose(
        layer(-10 * torch.ones(1, 3)), -10 * layer.kernel.sum(0), atol=1e-4
    )


def test_the_last_axis_of_the_input_meets_the_first_of_the_kernel():
    layer = Dense(6)
    x = torch.randn(2, 3, 4)
    y = layer(x)
    assert layer.kernel.shape == (4, 6)
    for i in range(2):
        for j in range(3):
            assert torch.allclose(y[i, j], layer(x[i, j][None])[0], atol=1e-6)


def test_one_layer_meets_ranks_2_3_and_4():
    layer = Dense(3)
    x = torch.randn(24, 5)
    flat = layer(x)
    for shape in [(4, 6, 5), (2, 3, 4, 5), (24, 5), (24, 1, 5)]:
        assert torch.allclose(layer(x.reshape(shape)).reshape(24, 3), flat, atol=1e-6)


def test_an_input_of_higher_rank_is_not_copied():
    layer = Dense(3)
    x = torch.randn(4, 6, 5, requires_grad=True)
    y = layer(x)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        y = layer(x)
    assert x.data_ptr() in saved
    y.sum().backward()
    assert torch.allclose(x.grad, layer.kernel.sum(1).expand(4, 6, 5), atol=1e-6)


def test_an_input_that_is_not_contiguous_gives_the_same():
    layer = Dense(3)
    x = torch.randn(5, 4, 6).permute(1, 2, 0)
    assert torch.allclose(layer(x), layer(x.contiguous()), atol=1e-6)


def test_only_the_last_dimension_must_be_known():
    layer = Dense(3)
    layer.build((None, None, 5))
    assert layer.kernel.shape == (5, 3)
    with pytest.raises(ValueError, match="last dimension of the input must be known"):
        Dense(3).build((2, None))
    with pytest.raises(ValueError, match="last dimension of the input must be known"):
        Dense(3)(fanin.Input((None,)))


@pytest.mark.parametrize("shape", [(None, 5), (8, 5), (None, None, 5), (2, None, 4, 5)])
def test_compute_output_shape_says_what_running_gives(shape):
    layer = Dense(3)
    assert layer.compute_output_shape(shape) == (*shape[:-1], 3)
    assert not layer.built
    real = tuple(2 if size is None else size for size in shape)
    assert tuple(layer(torch.zeros(real)).shape) == tuple(
        2 if size is None else size for size in layer.compute_output_shape(shape)
    )


def test_rank_1_is_refused_except_in_a_transform():
    layer = Dense(3)
    with pytest.raises(ValueError, match=r"dense.*min_ndim=2.*ndim=1"):
        layer(torch.ones(5))
    assert not layer.built
    layer(torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"min_ndim=2.*ndim=1"):
        layer(torch.ones(5))
    x = torch.randn(4, 5)
    assert torch.allclose(torch.vmap(layer)(x), layer(x), atol=1e-6)


def test_another_last_dimension_is_refused():
    layer = Dense(3)
    layer(torch.ones(2, 5))
    for wrong in (torch.ones(2, 4), torch.ones(2, 3, 6)):
        with pytest.raises(ValueError, match=r"Input 0 of layer 'dense'.*axis -1 to have size 5"):
            layer(wrong)
    with pytest.raises(ValueError, match="axis -1"):
        layer(fanin.Input((4,)))


def test_the_example_of_2017():
    model = fanin.Sequential()
    model.add(Dense(32, input_shape=(16,)))
    assert model.built
    assert model.input_shape == (None, 16)
    assert model.output_shape == (None, 32)
    model.add(Dense(32))
    assert [tuple(w.shape) for w in model.weights] == [(16, 32), (32,), (32, 32), (32,)]
    assert model(torch.ones(7, 16)).shape == (7, 32)


@pytest.mark.parametrize(
    "first",
    [
        lambda: [Dense(4, input_dim=16)],
        lambda: [Dense(4, batch_input_shape=(None, 16))],
        lambda: [Dense(4, input_shape=(16,), batch_size=None)],
        lambda: [fanin.Input((16,)), Dense(4)],
        lambda: [fanin.layers.InputLayer((16,)), Dense(4)],
    ],
)
def test_ways_to_give_the_input_shape(first):
    model = fanin.Sequential([*first(), Dense(2)])
    assert model.built
    assert model.input_shape == (None, 16)
    assert model.layers[0].kernel.shape == (16, 4)
    assert len(model.layers) == 2


def test_a_batch_size_can_be_given():
    assert fanin.Sequential([Dense(4, input_shape=(16,), batch_size=8)]).input_shape == (8, 16)
    assert fanin.Sequential([Dense(4, batch_input_shape=(8, 3, 16))]).output_shape == (8, 3, 4)


def test_without_a_shape_the_first_call_builds():
    model = fanin.Sequential([Dense(4), Dense(2)])
    assert not model.built
    assert model.weights == []
    assert model(torch.ones(3, 16)).shape == (3, 2)
    assert model.built
    assert model.layers[0].kernel.shape == (16, 4)
    assert model.layers[1].output.shape == (None, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool])
def test_other_dtypes_are_cast_to_that_of_the_layer(dtype):
    x = torch.randint(0, 2, (4, 5)).to(dtype)
    layer = Dense(3)
    assert torch.equal(layer(x), layer(x.float()))
    assert layer(x).dtype == torch.float32


def test_numpy_arrays_are_taken():
    layer = Dense(3)
    x = np.random.default_rng(0).normal(size=(4, 5))
    assert torch.equal(layer(x), layer(torch.tensor(x, dtype=torch.float32)))
    with pytest.raises(ValueError, match="does not fit float32"):
        layer(np.full((1, 5), 1e300))
    with pytest.raises(TypeError, match="takes tensors or arrays"):
        layer([[1.0, 2.0, 3.0, 4.0, 5.0]])
