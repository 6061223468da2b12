"""PyTorch's kernels that make a whole update: on which devices it has them, and how they read a learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from fanin.optimizers.core import Slots

_DEVICES = ("cpu", "cuda")


def has_kernels(weights: Sequence[Tensor], slots: Sequence[Slots]) -> bool:
    """Whether torch's fused kernels for Adam, AdamW and SGD take these: they read memory from its beginning to its end,
    and on a GPU they know the learning rate as a float32, which is too rough for float64."""
    device, dtype = weights[0].device.type, weights[0].dtype
    fits = device in _DEVICES and (dtype == torch.float32 or (dtype == torch.float64 and device == "cpu"))
    tensors = chain(weights, *(one.values() for one in slots))
    return fits and all(one.is_contiguous() and one.dtype == dtype for one in tensors if one.dim())


def rate_for_kernel(rate: Tensor) -> Tensor:
    """A learning rate, 0-dim and on the device of the weights: on a GPU the kernels read a float32."""
    return rate if rate.device.type == "cpu" else rate.float()
