"""Activations in pieces: straight lines and parabolas in place of smooth ones, and thresholds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fanin.activations.family import family


@family.entry()
def hard_sigmoid(x: Tensor) -> Tensor:
    """min(max(x / 6 + 0.5, 0), 1). (Keras 2 had 0.2 * x + 0.5.)"""
    return F.hardsigmoid(x)


@family.entry("hard_swish")
def hard_silu(x: Tensor) -> Tensor:
    """x * hard_sigmoid(x), also called hard swish.

    Source: Howard et al. 2019, https://arxiv.org/abs/1905.02244
    """
    return F.hardswish(x)


@family.entry()
def hard_tanh(x: Tensor) -> Tensor:
    """min(max(x, -1), 1)."""
    return F.hardtanh(x)


@family.entry()
def hard_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    """x where |x| > threshold, else 0; the threshold defaults to 0.5."""
    return F.hardshrink(x, threshold)


@family.entry()
def soft_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    """sign(x) * max(|x| - threshold, 0); the threshold defaults to 0.5, and a negative one is a RuntimeError."""
    return F.softshrink(x, threshold)


@family.entry()
def sparse_sigmoid(x: Tensor) -> Tensor:
    """min(max((x + 1) / 2, 0), 1).

    Source: Blondel et al. 2019, https://arxiv.org/abs/1901.02324
    """
    return (F.hardtanh(x) + 1) / 2


@family.entry()
def sparse_plus(x: Tensor) -> Tensor:
    """0 up to -1, (x + 1)^2 / 4 up to 1, then x: the integral of `sparse_sigmoid`.

    Source: Blondel et al. 2019, https://arxiv.org/abs/1901.02324
    """
    return torch.where(x < 1, (x + 1).clamp(min=0).square() / 4, x)


@family.entry()
def threshold(x: Tensor, threshold: float, default_value: float) -> Tensor:
    """x where x > threshold, else `default_value`; both must be given, so its name alone cannot serve a layer."""
    return F.threshold(x, threshold, default_value)


hard_swish = hard_silu
