"""The plain kernel: one matrix."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fanin.kernels import Full, KernelScheme, Slot


def tensors(**kwargs):
    return SimpleNamespace(**kwargs)


def test_it_asks_for_one_kernel():
    assert Full().slots(4, 3) == (Slot("kernel", (4, 3)),)
    assert Full().slots(None, 3) == (Slot("kernel", (None, 3)),)
    (slot,) = Full().slots(4, 3)
    assert slot.trainable
    assert slot.carries_rules
    assert slot.initializer is slot.dtype is None


@pytest.mark.parametrize("shape", [(5, 4), (0, 4), (2, 5, 4), (2, 3, 5, 4)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_matmul(shape, with_bias):
    x, kernel = torch.randn(shape, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    bias = torch.randn(3, dtype=torch.float64) if with_bias else None
    found = Full().matmul(x, tensors(kernel=kernel), bias)
    expected = torch.einsum("...i,iu->...u", x, kernel) + (0 if bias is None else bias)
    assert found.shape == (*shape[:-1], 3)
    assert torch.allclose(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4)])
def test_gradients_against_finite_differences(shape):
    x, kernel, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in (shape, (4, 3), (3,)))
    assert torch.autograd.gradcheck(lambda x, k, b: Full().matmul(x, tensors(kernel=k), b), (x, kernel, bias))


def test_dense_pack_and_input_dim():
    kernel = torch.randn(4, 3)
    assert Full().dense(tensors(kernel=kernel)) is kernel
    assert torch.equal(Full().dense(tensors(**Full().pack(kernel))), kernel)
    assert Full().input_dim({"kernel": (4, 3), "bias": (3,)}) == 4


def test_schemes_are_values():
    assert Full() == Full()
    assert hash(Full()) == hash(Full())
    with pytest.raises(TypeError, match="abstract"):
        KernelScheme()
