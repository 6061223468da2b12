"""The contract of a kernel scheme, and the slot: one tensor that a scheme asks its layer to keep.

A scheme is a frozen value without tensors. It says which tensors a kernel needs, how they act on an input, what they
mean as one dense matrix, and how they are made from one. The layer creates every tensor through its `add_weight`, so
saving, freezing, counting and moving to a device walk over the slots and know no scheme by name.

The stored Parameter named "kernel" is always the layer's attribute `kernel`: optimizers, `state_dict`, `parametrize`
and pruning see the tensor that trains. What the kernel amounts to, when a scheme wraps or packs it, is `dense(...)`,
which a layer shows as `effective_kernel`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Slot:
    """One tensor of a kernel.

    Attributes:
        name: attribute and state_dict key on the layer, such as "kernel".
        shape: its shape; None for a size that is not known before build.
        trainable: whether it is a Parameter (True) or a buffer.
        dtype: a dtype name, or None for the layer's `variable_dtype`.
        initializer: what fills it, or None for the layer's `kernel_initializer`.
        carries_rules: whether the layer's kernel regularizer and constraint apply to it.
        late: whether it stands behind the layer's other weights, as an adapter's tensors do.
    """

    name: str
    shape: tuple[int | None, ...]
    trainable: bool = True
    dtype: str | None = None
    initializer: Any = None
    carries_rules: bool = True
    late: bool = False


class KernelScheme(ABC):
    """How the kernel of a layer with I inputs and U units is stored, and how it acts.

    `tensors` is any object with the slots as attributes, floats in the dtype of the input unless the slot has a dtype
    of its own; a layer is one. It also has `in_training`, for schemes that act otherwise then.

    Attributes:
        part: the name of the stored tensor that stands for the kernel.
        is_matrix: whether that tensor is the kernel, or the kernel transposed, so that `dense` costs nothing.
    """

    part: str = "kernel"
    is_matrix: ClassVar[bool] = False

    @abstractmethod
    def slots(self, input_dim: int | None, units: int) -> tuple[Slot, ...]:
        """The tensors to keep, in the order in which files store them. `input_dim` is None before build."""

    @abstractmethod
    def matmul(self, inputs: torch.Tensor, tensors: Any, bias: torch.Tensor | None) -> torch.Tensor:
        """inputs (B, ..., I) times the kernel, plus the bias (U,) unless None: (B, ..., U), in the dtype of inputs."""

    @abstractmethod
    def dense(self, tensors: Any) -> torch.Tensor:
        """What the stored tensors mean: the kernel as one matrix (I, U)."""

    def lookup(self, indices: torch.Tensor, tensors: Any) -> torch.Tensor:
        """Rows of the kernel: indices (B, ...), whole numbers from 0 to I - 1 -> (B, ..., U)."""
        return functional.embedding(indices, self.dense(tensors))

    @abstractmethod
    def pack(self, kernel: torch.Tensor) -> dict[str, torch.Tensor]:
        """Values for the slots that stand for a given dense kernel (I, U)."""

    @abstractmethod
    def input_dim(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """I, from the shapes of stored tensors by slot name; how a state_dict builds a layer."""
