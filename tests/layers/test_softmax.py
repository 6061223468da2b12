"""Softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fanin.layers import Masking, Softmax


@pytest.mark.parametrize("axis", [-1, 0, 1, (1, 2), [0, 1, 2]])
def test_is_the_formula(axis):
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    axes = tuple(axis) if isinstance(axis, list) else axis
    powers = np.exp(x.numpy())
    found = Softmax(axis, dtype="float64")(x)
    np.testing.assert_allclose(found, powers / powers.sum(axes, keepdims=True), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_masked_entries_are_zero_and_the_rest_is_a_softmax(dtype):
    x = 10 * torch.randn(3, 4)
    keep = torch.tensor([[True, False, True, True]] * 2 + [[False] * 4])
    found = Softmax(dtype=dtype)(x, mask=keep)
    assert not found[~keep].any()
    expected = Softmax(dtype=dtype)(x[:2, [0, 2, 3]])
    torch.testing.assert_close(found[:2, [0, 2, 3]], expected, rtol=2 * torch.finfo(found.dtype).eps, atol=0)


def test_gradients_of_masked_entries_are_zero():
    x = torch.randn(3, 4, requires_grad=True)
    keep = torch.tensor([[True, False, True, True]] * 2 + [[False] * 4])
    (gradient,) = torch.autograd.grad(Softmax()(x, mask=keep).square().sum(), x)
    assert torch.isfinite(gradient).all()
    assert not gradient[~keep].any()


def test_masks_of_numbers():
    x = torch.zeros(1, 3)
    for mask in (torch.tensor([1.0, 0.6, 0.5]), torch.tensor([1, 1, 0])):
        assert Softmax()(x, mask=mask).tolist() == [[0.5, 0.5, 0.0]]


@pytest.mark.parametrize("shape", [(4, 3), (2, 2, 3), (2, 1), (1, 2, 3)])
def test_masks_that_do_not_broadcast(shape):
    x = torch.zeros(1, 3) if shape != (2, 1) else torch.zeros(1, 1)
    with pytest.raises(ValueError, match=f"Layer 'mine': mask of shape .* inputs of shape \\({x.shape[0]}, "):
        Softmax(name="mine")(x, mask=torch.ones(shape, dtype=torch.bool))


def test_a_mask_that_the_input_carries():
    x = Masking()(torch.tensor([[[1.0], [0.0]], [[2.0], [3.0]]]))
    found = Softmax()(x.squeeze(-1), mask=x._keras_mask)
    assert found[0].tolist() == [1.0, 0.0]
    assert found._keras_mask is x._keras_mask
