"""AlphaDropout."""

from __future__ import annotations

import math

import pytest
import torch

import fanin
from fanin.layers import AlphaDropout

LOWEST = torch.nn.functional.selu(torch.tensor(-math.inf, dtype=torch.float64)).item()
X = torch.full((200, 300), 3.0)
sources = pytest.mark.parametrize("arguments", [{}, {"seed": 1}, {"noise_shape": (None, None)}])


def affine(rate):
    """The factor and the summand of the paper's equation: (q + c^2 q (1 - q))^(-1/2), and -factor (1 - q) c."""
    q = 1 - rate
    factor = (q + LOWEST**2 * q * (1 - q)) ** -0.5
    return factor, -factor * (1 - q) * LOWEST


@sources
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_formula_and_the_fraction(rate, arguments):
    found = AlphaDropout(rate, dtype="float64", **arguments)(X, training=True)
    factor, summand = affine(rate)
    values = torch.tensor(sorted([factor * LOWEST + summand, factor * 3 + summand]), dtype=torch.float64)
    torch.testing.assert_close(found.unique(), values, rtol=1e-13, atol=0)
    kept = (found > 0).double().mean().item()
    assert abs(kept - (1 - rate)) < 5 * math.sqrt(rate * (1 - rate) / X.numel())


@sources
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_mean_and_variance_stay(rate, arguments):
    """Of n outputs with mean 0, variance 1 and fourth moment m4 the mean deviates by n^(-1/2), the variance by
    ((m4 - 1) / n)^(1/2); the noise of one entry is drawn for itself in all three cases."""
    x = torch.randn(400, 500, dtype=torch.float64)
    x = (x - x.mean()) / x.std(correction=0)
    found = AlphaDropout(rate, dtype="float64", **arguments)(x, training=True)
    spread = math.sqrt((found**4).mean().item() / found.numel())
    assert abs(found.mean().item()) < 5 / math.sqrt(found.numel())
    assert abs(found.var().item() - 1) < 5 * spread


def test_mean_and_variance_stay_through_many_layers():
    """What it is for: SELU and AlphaDropout in turn keep activations near mean 0 and variance 1."""
    model = [layer for _ in range(8) for layer in (selu(), AlphaDropout(0.1))]
    x = torch.randn(2000, 100)
    for layer in model:
        x = layer(x, training=True)
    assert abs(x.mean().item()) < 0.1
    assert abs(x.var().item() - 1) < 0.2


def selu():
    return fanin.layers.Dense(100, "selu", kernel_initializer="lecun_normal")


@pytest.mark.parametrize("arguments", [{}, {"seed": 1}])
def test_rates_of_0_and_1(arguments):
    assert AlphaDropout(0, **arguments)(X, training=True) is X
    x = torch.tensor([[math.inf, 1.0, -2.0]], requires_grad=True)
    found = AlphaDropout(1, **arguments)(x, training=True)
    assert found.tolist() == [[0.0] * 3]  # sqrt(1 - rate) times a finite number, before
    assert not torch.autograd.grad(found.sum(), x)[0].any()
    near = AlphaDropout(1 - 1e-12, **arguments, dtype="float64")(torch.ones(2, 2), training=True)
    assert near.abs().max().item() < 1e-5


def test_none_in_inference():
    assert AlphaDropout(0.5)(X, training=False) is X
    assert AlphaDropout(0.5).eval()(X) is X


def test_the_gradient_is_the_factor_where_kept():
    x = torch.full((50, 50), 2.0, requires_grad=True)
    found = AlphaDropout(0.3)(x, training=True)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    kept = found > 0
    torch.testing.assert_close(gradient, torch.where(kept, affine(0.3)[0], 0.0))
    assert 0 < kept.sum() < x.numel()


def test_noise_is_shared_along_axes_of_1():
    found = AlphaDropout(0.5, (None, 1, None), seed=2)(torch.ones(20, 7, 30), training=True)
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert found[:, 0].unique().numel() == 2


def test_infinite_inputs_that_are_dropped_leave_no_nan():
    found = AlphaDropout(0.5, seed=1)(torch.full((1, 100), math.inf), training=True)
    factor, summand = affine(0.5)
    assert set(found.flatten().tolist()) == {torch.tensor(factor * LOWEST + summand).item(), math.inf}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("given", [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8])
def test_dtypes(dtype, given):
    """The kept are rounded twice, after the product and after the sum; the dropped once."""
    layer = AlphaDropout(0.5, seed=3, dtype=dtype)
    x = torch.full((40, 50), 3).to(given)
    found = layer(x, training=True)
    assert found.dtype == layer.dtype_policy.compute
    factor, summand = affine(0.5)
    kept, dropped = torch.tensor([factor * 3 + summand, factor * LOWEST + summand], dtype=torch.float64)
    expected = torch.where(found > 1, kept, dropped)
    torch.testing.assert_close(found.double(), expected, rtol=2 * torch.finfo(found.dtype).eps, atol=0)
    assert layer(x, training=False).dtype == found.dtype


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), None, "a", True])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match="AlphaDropout: rate must be"):
        AlphaDropout(rate)


def test_bad_shapes_and_seeds():
    with pytest.raises(ValueError, match="AlphaDropout: noise_shape must be a tuple of positive sizes and None"):
        AlphaDropout(0.5, (0, 1))
    with pytest.raises(ValueError, match="AlphaDropout: seed must be an integer or None"):
        AlphaDropout(0.5, seed=0.5)
    layer = AlphaDropout(0.5, (5, None), name="mine")
    with pytest.raises(ValueError, match=r"Layer 'mine': noise_shape=\(5, None\) does not broadcast .*\(200, 300\)"):
        layer(X, training=True)
    assert layer(X, training=False) is X
