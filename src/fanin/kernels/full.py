"""The plain kernel: one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import addmm, mm
from torch.nn import functional

from fanin.kernels.base import KernelScheme, Slot


@dataclass(frozen=True)
class Full(KernelScheme):
    """One Parameter of shape (I, U), as Keras stores it: output = inputs @ kernel + bias.

    Attributes:
        part: its name.
    """

    part: str = "kernel"
    is_matrix: ClassVar[bool] = True

    def slots(self, input_dim: int | None, units: int) -> tuple[Slot, ...]:
        """One slot."""
        return (Slot(self.part, (input_dim, units)),)

    def matmul(self, inputs: torch.Tensor, tensors: Any, bias: torch.Tensor | None) -> torch.Tensor:
        """One product with the bias inside it; inputs of rank above 2 are viewed, not copied."""
        kernel = getattr(tensors, self.part)
        if inputs.ndim == 2:
            return mm(inputs, kernel) if bias is None else addmm(bias, inputs, kernel)
        return functional.linear(inputs, kernel.t(), bias)

    def dense(self, tensors: Any) -> torch.Tensor:
        """The kernel itself."""
        kernel: torch.Tensor = getattr(tensors, self.part)
        return kernel

    def pack(self, kernel: torch.Tensor) -> dict[str, torch.Tensor]:
        """The kernel itself."""
        return {self.part: kernel}

    def input_dim(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The first dimension of the kernel."""
        return shapes[self.part][0]
