"""RMSNormalization against its formula in float64, and against torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from axes_cases import EASY, shapes_with_axes
from hypothesis import given
from hypothesis import strategies as st

from fanin.layers import RMSNormalization


@EASY
@given(case=shapes_with_axes(), seed=st.integers(0, 2**20))
def test_the_formula_along_any_axes(case, seed):
    shape, axis, axes = case
    rng = np.random.default_rng(seed)
    layer = RMSNormalization(axis, epsilon=0.01, dtype="float64")
    layer.build(shape)
    assert [weight.shape for weight in layer.weights] == [tuple(shape[a] for a in axes)]
    layer.set_weights([rng.uniform(0.5, 2, layer.scale.shape)])
    x = rng.normal(2.0, 3.0, shape)
    spread = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    expected = x / np.sqrt(np.square(x).mean(axes, keepdims=True) + 0.01)
    expected = expected * layer.scale.detach().numpy().reshape(spread)
    y = layer(torch.from_numpy(x))
    np.testing.assert_allclose(y.detach(), expected, rtol=1e-12)
    assert y.shape == layer.compute_output_shape(shape)


def test_it_is_that_of_torch_with_its_gradients():
    theirs, ours = torch.nn.RMSNorm(7, eps=1e-6, dtype=torch.float64), RMSNormalization(dtype="float64")
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    ours(x)
    values = torch.rand(7, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.copy_(values)
        ours.scale.copy_(values)
    found = []
    for layer, weight in ((theirs, theirs.weight), (ours, ours.scale)):
        y = layer(x)
        found.append([y, *torch.autograd.grad(y.pow(3).sum(), [x, weight])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


def test_a_row_of_zeros_has_finite_gradients():
    x = torch.zeros(2, 3, requires_grad=True)
    y = RMSNormalization()(x)
    assert not y.any()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, torch.full((2, 3), 1e3))


def test_statistics_are_float32_under_mixed_float16():
    """The square of 300 is more than float16 holds."""
    layer = RMSNormalization(dtype="mixed_float16")
    y = layer(torch.full((2, 8), 300.0, dtype=torch.float16))
    assert y.dtype == torch.float16
    assert y.tolist() == [[1.0] * 8] * 2
    assert layer.scale.dtype == torch.float32


def test_the_axis_becomes_a_list_as_in_keras():
    layer = RMSNormalization()
    assert layer.get_config()["axis"] == -1
    layer(torch.ones(2, 3))
    assert layer.get_config()["axis"] == [-1]
    twin = RMSNormalization.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()


def test_an_optimizer_may_hold_the_scale_before_it_has_a_shape():
    layer = RMSNormalization()
    held = layer.scale
    assert layer.weights == []
    layer.build((None, 4))
    assert layer.scale is held
    assert layer.scale.tolist() == [1.0] * 4


def test_weights_are_an_argument():
    layer = RMSNormalization(weights=[np.array([1.0, 2.0])])
    torch.testing.assert_close(layer(torch.ones(1, 2)).detach(), torch.tensor([[1.0, 2.0]]))


def test_a_failed_build_changes_nothing():
    layer = RMSNormalization(axis=[2, 1])
    with pytest.raises(ValueError, match=r"the sizes of axes \[1, 2\] must be known, found shape \(None, 3, None\)"):
        layer.build((None, 3, None))
    assert layer.axis == [2, 1]
    assert layer.weights == []
    layer.build((None, 3, 4))
    assert layer.scale.shape == (3, 4)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"RMSNormalization: epsilon must be a number in .*, found None"):
        RMSNormalization(epsilon=None)
    with pytest.raises(ValueError, match=r"RMSNormalization: epsilon must be a number in \[0, inf\), found -0\.1"):
        RMSNormalization(epsilon=-0.1)
    layer = RMSNormalization(name="rms")
    layer(torch.ones(2, 3))
    with pytest.raises(ValueError, match="layer 'rms' is incompatible: expected axis -1 to have size 3, found 4"):
        layer(torch.ones(2, 4))


def test_a_mask_ends_here_as_in_keras():
    with pytest.warns(UserWarning, match="does not support masking"):
        y = RMSNormalization()(torch.ones(2, 4, 3), mask=torch.ones(2, 4, dtype=torch.bool))
    assert not hasattr(y, "_keras_mask")
