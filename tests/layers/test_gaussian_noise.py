"""GaussianNoise."""

from __future__ import annotations

import math

import pytest
import torch

from fanin.layers import GaussianNoise

X = torch.full((200, 300), 3.0)


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("stddev", [0.1, 1])
def test_mean_and_deviation(stddev, seed):
    noise = GaussianNoise(stddev, seed)(X, training=True).double() - 3
    count = X.numel()
    assert abs(noise.mean().item()) < 5 * stddev / math.sqrt(count)
    assert abs(noise.std().item() / stddev - 1) < 5 / math.sqrt(2 * count)
    assert abs((noise > stddev).double().mean().item() - 0.1587) < 5 * math.sqrt(0.1587 * 0.8413 / count)


def test_none_in_inference_or_without_deviation():
    assert GaussianNoise(0.5)(X, training=False) is X
    assert GaussianNoise(0)(X, training=True) is X


def test_the_gradient_passes_unchanged():
    x = torch.ones(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(GaussianNoise(0.5)(x, training=True).sum(), x)
    assert gradient.tolist() == [[1.0] * 4] * 3


@pytest.mark.parametrize("stddev", [-0.1, 1.1, float("nan"), None, "a"])
def test_bad_deviations(stddev):
    with pytest.raises(ValueError, match="GaussianNoise: stddev must be"):
        GaussianNoise(stddev)
