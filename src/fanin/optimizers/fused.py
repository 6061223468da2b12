"""PyTorch's kernels that make a whole update: on which devices it has them, and how they read a learning rate."""

from __future__ import annotations

import torch
from torch import Tensor

_DEVICES = ("cpu", "cuda")


def has_kernels(device: torch.device) -> bool:
    """Whether torch has fused kernels for Adam, AdamW and SGD there."""
    return device.type in _DEVICES


def rate_for_kernel(rate: Tensor) -> Tensor:
    """A learning rate, 0-dim and on the device of the weights: on a GPU the kernels read a float32."""
    return rate if rate.device.type == "cpu" else rate.float()
