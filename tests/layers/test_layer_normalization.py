"""LayerNormalization against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from axes_cases import EASY, shapes_with_axes
from hypothesis import given
from hypothesis import strategies as st

from fanin.layers import Input, LayerNormalization


@EASY
@given(case=shapes_with_axes(), center=st.booleans(), scale=st.booleans(), seed=st.integers(0, 2**20))
def test_the_formula_along_any_axes(case, center, scale, seed):
    shape, axis, axes = case
    np.random.seed(seed)
    layer = LayerNormalization(axis=axis, epsilon=0.01, center=center, scale=scale, dtype="float64")
    layer.build(shape)
    assert [weight.shape for weight in layer.weights] == [tuple(shape[a] for a in axes)] * (center + scale)
    layer.set_weights([np.random.uniform(0.5, 2, weight.shape) for weight in layer.get_weights()])
    x = np.random.normal(2.0, 3.0, shape)
    spread = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 0.01)
    expected = expected * layer.gamma.detach().numpy().reshape(spread) if scale else expected
    expected = expected + layer.beta.detach().numpy().reshape(spread) if center else expected
    y = layer(torch.from_numpy(x))
    np.testing.assert_allclose(y.detach(), expected, rtol=1e-10, atol=1e-10)
    assert y.shape == layer.compute_output_shape(shape)


def test_training_and_inference_are_the_same():
    layer = LayerNormalization()
    x = torch.randn(5, 3)
    assert torch.equal(layer(x), layer.eval()(x))
    assert layer(x[:0]).shape == (0, 3)
    assert layer.updates == []


def test_one_row_without_its_batch():
    layer = LayerNormalization()
    x = torch.randn(5, 3)
    y = layer(x)
    torch.testing.assert_close(layer(x[0]), y[0])
    torch.testing.assert_close(torch.func.vmap(layer)(x), y)


def test_a_mask_goes_through():
    layer = LayerNormalization()
    x, mask = torch.randn(2, 4, 3), torch.rand(2, 4) > 0.5
    assert layer.compute_mask(x, mask) is mask
    layer(x, mask=mask)


def test_statistics_are_float32_under_mixed_bfloat16():
    """Float32 inputs are not rounded to 16 bits before their mean is taken off."""
    layer = LayerNormalization(dtype="mixed_bfloat16", epsilon=1e-6)
    x = torch.randn(50, 16) + 1000
    exact = x.double()
    expected = (exact - exact.mean(-1, keepdim=True)) / exact.std(-1, correction=0, keepdim=True)
    for given_x in (x, x.numpy()):
        y = layer(given_x)
        assert y.dtype == torch.bfloat16
        # Eight bits of bfloat16, and 2^-24 of 1000 against a spread of 1.
        np.testing.assert_allclose(y.detach().double(), expected, rtol=2**-8, atol=1e-3)
    assert {weight.dtype for weight in layer.weights} == {torch.float32}
    assert layer(Input((16,))).dtype == torch.bfloat16


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8])
def test_the_output_has_the_compute_dtype(policy, dtype):
    layer = LayerNormalization(dtype=policy)
    x = torch.tensor([[1, 2, 4], [3, 3, 9]], dtype=dtype)
    y = layer(x)
    assert y.dtype == layer.dtype_policy.compute
    exact = x.double()
    expected = (exact - exact.mean(-1, keepdim=True)) / (exact.var(-1, correction=0, keepdim=True) + 1e-3).sqrt()
    np.testing.assert_allclose(y.detach().double(), expected, atol=4 * torch.finfo(y.dtype).eps)


def test_the_axis_becomes_a_list_as_in_keras():
    layer = LayerNormalization()
    assert layer.get_config()["axis"] == -1
    layer(torch.ones(2, 3))
    assert layer.get_config()["axis"] == [-1]
    twin = LayerNormalization.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()


def test_a_failed_build_changes_nothing():
    layer = LayerNormalization(axis=[2, 1])
    with pytest.raises(ValueError, match=r"the sizes of axes \[1, 2\] must be known, found shape \(None, 3, None\)"):
        layer.build((None, 3, None))
    assert layer.axis == [2, 1]
    assert layer.weights == []
    layer.build((None, 3, 4))
    assert layer.gamma.shape == (3, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"axis": 1.5}, TypeError, "axis must be an integer or several, found 1.5"),
        ({"axis": "1"}, TypeError, "axis must be an integer or several, found '1'"),
        ({"axis": []}, ValueError, "axis must name at least one axis"),
        ({"rms_scaling": True}, ValueError, "rms_scaling=True, which Keras deprecates, is not supported"),
        ({"epsilon": np.inf}, ValueError, "epsilon must be a number in .*, found inf"),
    ],
)
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=f"LayerNormalization.*{message}"):
        LayerNormalization(**arguments)
    assert not LayerNormalization(rms_scaling=False).built


def test_inputs_that_are_refused():
    with pytest.raises(ValueError, match="'ln': axis 2 does not exist in an input of rank 2"):
        LayerNormalization(axis=2, name="ln")(torch.ones(2, 3))
    with pytest.raises(ValueError, match="'ln': axis 2 does not exist in an input of rank 2"):
        LayerNormalization(axis=2, name="ln").compute_output_shape((None, 3))
    with pytest.raises(ValueError, match=r"'ln': axes \[1, -1\] name the same axis twice"):
        LayerNormalization(axis=[1, -1], name="ln")(torch.ones(2, 3))
    layer = LayerNormalization(name="ln")
    layer(torch.ones(2, 3))
    with pytest.raises(ValueError, match="layer 'ln' is incompatible: expected axis -1 to have size 3, found 4"):
        layer(torch.ones(2, 4))
    with pytest.raises(TypeError, match="'ln' takes real numbers"):
        layer(torch.ones(2, 3, dtype=torch.complex64))
