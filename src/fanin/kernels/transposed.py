"""The kernel of `torch.nn.Linear`: one matrix, transposed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch.nn import functional

from fanin.kernels.base import KernelScheme, Slot


@dataclass(frozen=True)
class Transposed(KernelScheme):
    """One Parameter `weight` of shape (U, I), as PyTorch stores it: output = inputs @ weight.T + bias."""

    part: str = field(init=False, repr=False, default="weight")
    is_matrix: ClassVar[bool] = True

    def slots(self, input_dim: int | None, units: int) -> tuple[Slot, ...]:
        """One slot, "weight"."""
        return (Slot("weight", (units, input_dim)),)

    def matmul(self, inputs: torch.Tensor, tensors: Any, bias: torch.Tensor | None) -> torch.Tensor:
        """One product with the bias inside it."""
        return functional.linear(inputs, tensors.weight, bias)

    def dense(self, tensors: Any) -> torch.Tensor:
        """The weight, seen transposed."""
        weight: torch.Tensor = tensors.weight
        return weight.t()

    def pack(self, kernel: torch.Tensor) -> dict[str, torch.Tensor]:
        """The kernel, seen transposed."""
        return {"weight": kernel.t()}

    def input_dim(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The last dimension of the weight."""
        return shapes["weight"][1]
