"""UnitNormalization against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from axes_cases import EASY, shapes_with_axes
from hypothesis import given
from hypothesis import strategies as st

from fanin.layers import Masking, UnitNormalization


@EASY
@given(case=shapes_with_axes(), seed=st.integers(0, 2**20))
def test_the_formula_along_any_axes(case, seed):
    shape, axis, axes = case
    x = np.random.default_rng(seed).normal(2.0, 3.0, shape)
    layer = UnitNormalization(axis, dtype="float64")
    y = layer(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(y, x / np.sqrt(np.square(x).sum(axes, keepdims=True)), rtol=1e-13)
    np.testing.assert_allclose(np.square(y).sum(axes), 1.0, rtol=1e-13)
    assert y.shape == layer.compute_output_shape(shape)


def test_gradients_are_those_of_finite_differences():
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(UnitNormalization([0, 2], dtype="float64"), x)


def test_short_slices_are_divided_by_the_bound():
    x = torch.tensor([[0.0, 0.0], [3e-15, 4e-15], [3e-9, 4e-9]], requires_grad=True)
    y = UnitNormalization()(x)
    torch.testing.assert_close(y.detach(), torch.tensor([[0.0, 0.0], [3e-3, 4e-3], [0.6, 0.8]]))
    (gradient,) = torch.autograd.grad(y[:2].sum(), x)
    torch.testing.assert_close(gradient, torch.tensor([[1e12, 1e12], [1e12, 1e12], [0.0, 0.0]]))


@pytest.mark.parametrize("policy", ["float16", "mixed_float16"])
def test_squares_do_not_overflow_in_float16(policy):
    x = torch.full((2, 64), 1000.0, dtype=torch.float16)
    assert UnitNormalization(dtype=policy)(x).tolist() == [[0.125] * 64] * 2


def test_a_mask_goes_through():
    layer = UnitNormalization()
    x = Masking()(torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]))
    assert layer(x)._keras_mask is x._keras_mask
    assert layer.compute_mask(x, x._keras_mask) is x._keras_mask


def test_built_without_weights():
    layer = UnitNormalization()
    assert layer.built
    assert layer.weights == []
    assert torch.equal(layer(torch.ones(1, 4)), layer.eval()(torch.ones(1, 4)))
