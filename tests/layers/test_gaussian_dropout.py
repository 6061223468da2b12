"""GaussianDropout."""

from __future__ import annotations

import math

import pytest
import torch

from fanin.layers import GaussianDropout

X = torch.full((200, 300), 3.0)


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_mean_and_deviation_of_the_factors(rate, seed):
    factors = GaussianDropout(rate, seed)(X, training=True).double() / 3
    deviation, count = math.sqrt(rate / (1 - rate)), X.numel()
    assert abs(factors.mean().item() - 1) < 5 * deviation / math.sqrt(count)
    assert abs(factors.std().item() / deviation - 1) < 5 / math.sqrt(2 * count)
    above = (factors > 1 + deviation).double().mean().item()
    assert abs(above - 0.1587) < 5 * math.sqrt(0.1587 * 0.8413 / count)


def test_each_entry_has_a_factor_of_its_own():
    factors = GaussianDropout(0.5, 1)(X, training=True) / 3
    assert factors.unique().numel() > 0.9 * factors.numel()


def test_none_in_inference_or_with_a_rate_of_0():
    assert GaussianDropout(0.5)(X, training=False) is X
    assert GaussianDropout(0.5).eval()(X) is X
    assert GaussianDropout(0)(X, training=True) is X


def test_the_gradient_is_the_factor():
    x = torch.full((3, 4), 2.0, requires_grad=True)
    found = GaussianDropout(0.5)(x, training=True)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(2 * gradient, found.detach())


def test_a_rate_of_1_has_no_noise_to_draw():
    layer = GaussianDropout(1, name="mine")
    assert layer(X, training=False) is X
    with pytest.raises(ValueError, match="Layer 'mine': a rate of 1 asks for noise of infinite variance"):
        layer(X, training=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("given", [torch.float16, torch.float64, torch.int64])
def test_dtypes(dtype, given):
    layer = GaussianDropout(0.5, seed=1, dtype=dtype)
    for training in (True, False):
        assert layer(torch.ones(2, 3, dtype=given), training=training).dtype == layer.dtype_policy.compute


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), None, "a", True])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match="GaussianDropout: rate must be"):
        GaussianDropout(rate)


def test_bad_seeds():
    with pytest.raises(ValueError, match="GaussianDropout: seed must be an integer or None"):
        GaussianDropout(0.5, seed="a")
