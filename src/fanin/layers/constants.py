"""Numbers among a layer's arguments: one, or an array that broadcasts over the inputs."""

from __future__ import annotations

import numbers
from typing import Any

import torch

from fanin.layers.base.convert import as_tensor


def constant(value: Any, name: str) -> Any:
    """A number as it is; lists, arrays and tensors of numbers as a tensor. Else a TypeError that gives its name."""
    if value is None:
        raise TypeError(f"{name} must be a number or an array of numbers, found None.")
    tensor = as_tensor(value, name)
    return value if isinstance(value, numbers.Real) else tensor.detach()


def constant_like(value: Any, inputs: torch.Tensor) -> Any:
    """A number as it is, a tensor in the dtype and on the device of the inputs."""
    return value.to(inputs) if isinstance(value, torch.Tensor) else value
