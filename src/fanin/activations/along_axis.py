"""Activations along an axis: each result depends on the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fanin.activations.family import family

Axis = int | tuple[int, ...] | list[int] | None


@family.entry()
def softmax(x: Tensor, axis: Axis = -1) -> Tensor:
    """exp(x) / sum(exp(x)), positive and summing to 1 along `axis`, without overflow.

    Args:
        x: any shape.
        axis: an axis, default the last; several axes; or None for all.

    >>> softmax(torch.tensor([[1.0, 1.0]])).tolist()
    [[0.5, 0.5]]
    """
    if axis is None or isinstance(axis, (tuple, list)):
        return _log_softmax(x, axis).exp()
    return torch.softmax(x, axis)


@family.entry()
def log_softmax(x: Tensor, axis: Axis = -1) -> Tensor:
    """log(softmax(x)) = x - log(sum(exp(x))) along `axis` (one, several, or None for all), without overflow."""
    if axis is None or isinstance(axis, (tuple, list)):
        return _log_softmax(x, axis)
    return torch.log_softmax(x, axis)


def _log_softmax(x: Tensor, axis: tuple[int, ...] | list[int] | None) -> Tensor:
    axes = tuple(range(x.ndim)) if axis is None else tuple(axis)
    return x - torch.logsumexp(x, axes, keepdim=True)


@family.entry()
def sparsemax(x: Tensor, axis: int = -1) -> Tensor:
    """The point of the probability simplex nearest to x: max(x - tau, 0), tau such that it sums to 1 along `axis`.

    With x sorted downwards as z, the k largest stay positive for the largest k with k * z_k > z_1 + ... + z_k - 1, and
    tau = (z_1 + ... + z_k - 1) / k.

    Source: Martins & Astudillo 2016, https://arxiv.org/abs/1602.02068

    >>> sparsemax(torch.tensor([1.0, 2.0, 1.5])).tolist()
    [0.0, 0.75, 0.25]
    """
    z = torch.sort(x, dim=axis, descending=True).values
    rank = torch.ones_like(z).cumsum(axis)
    kept = rank * z > z.cumsum(axis) - 1
    largest = torch.where(kept, z, torch.zeros_like(z)).sum(axis, keepdim=True)
    tau = (largest - 1) / kept.sum(axis, keepdim=True)
    return torch.relu(x - tau)


@family.entry()
def glu(x: Tensor, axis: int = -1) -> Tensor:
    """a * sigmoid(b), where a and b are the halves of x along `axis`, whose size must be even (else a RuntimeError).

    Source: Dauphin et al. 2017, https://arxiv.org/abs/1612.08083
    """
    return F.glu(x, axis)
