"""Low-rank adapters (LoRA) over any kernel: output = base(inputs) + scale (inputs @ A) @ B.

The layer keeps the base's tensors and one pair A (I, R), B (R, U) for each adapter; at most one adapter acts at a time,
or, inside `fanin.adapters.rows`, one in each row.
Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685; rank-stabilized scale: Kalajdzievski 2023,
https://arxiv.org/abs/2312.03732
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import addmm, mm
from torch.nn import functional

from fanin.kernels.adapter import Adapter
from fanin.kernels.base import KernelScheme, Slot
from fanin.kernels.mixed import Occurring, lookup_by_rows, matmul_by_rows
from fanin.kernels.rows import Blocks, rows_of


@dataclass(frozen=True)
class LowRank(KernelScheme):
    """A kernel scheme with adapters: base + scale A @ B of the active one.

    In training neither A @ B nor a gradient of the kernel's size is formed; the products cost R (I + U) for each row.

    Attributes:
        base: the scheme of the kernel.
        adapters: all of them, in the order of their tensors.
        active: the name of the one that acts, or None.
        merged: the name of the one that was added to the base's tensors; none is active then.
    """

    base: KernelScheme
    adapters: tuple[Adapter, ...] = ()
    active: str | None = None
    merged: str | None = None
    part: str = field(init=False, repr=False, compare=False, default="kernel")
    _acting: Adapter | None = field(init=False, repr=False, compare=False, default=None)
    _names: tuple[str, str] = field(init=False, repr=False, compare=False, default=("", ""))

    def __post_init__(self) -> None:
        object.__setattr__(self, "part", self.base.part)
        if self.active is not None:  # found once, not at each call
            object.__setattr__(self, "_acting", self.adapter(self.active))
            object.__setattr__(self, "_names", self.pair_names(self.active))

    # --- what the layer keeps ----------------------------------------------------------------------------------------

    def pair_names(self, name: str) -> tuple[str, str]:
        """The names of an adapter's A and B: `lora_kernel_a`, `lora_kernel_b`."""
        return f"{name}_{self.part}_a", f"{name}_{self.part}_b"

    def pair(self, adapter: Adapter, input_dim: int | None, units: int) -> tuple[Slot, Slot]:
        """The slots of A (I, R) and B (R, U): float32 always, as small steps would vanish in 16 bits."""
        a, b = self.pair_names(adapter.name)
        return (
            Slot(a, (input_dim, adapter.rank), dtype="float32", initializer=adapter.a_initializer, late=True),
            Slot(b, (adapter.rank, units), dtype="float32", initializer=adapter.b_initializer, late=True),
        )

    def slots(self, input_dim: int | None, units: int) -> tuple[Slot, ...]:
        """The base's, then the pairs."""
        pairs = [slot for adapter in self.adapters for slot in self.pair(adapter, input_dim, units)]
        return (*self.base.slots(input_dim, units), *pairs)

    def pack(self, kernel: torch.Tensor) -> dict[str, torch.Tensor]:
        """The base's tensors for this kernel; the pairs are left as they are."""
        return self.base.pack(kernel)

    def input_dim(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """As the base says."""
        return self.base.input_dim(shapes)

    # --- what it computes --------------------------------------------------------------------------------------------

    def matmul(self, inputs: torch.Tensor, tensors: Any, bias: torch.Tensor | None) -> torch.Tensor:
        """The base's product, plus scale (inputs @ A) @ B; A and B in the dtype of the inputs, never the other way."""
        if Blocks.count and (rows := rows_of(tensors)) is not None:
            return matmul_by_rows(self.base, self._occurring(rows.groups), inputs, tensors, bias, rows)
        acting, names = self._acting, self._names
        if acting is None:
            return self.base.matmul(inputs, tensors, bias)
        if self._sum_is_cheaper(inputs, tensors):
            return functional.linear(inputs, self.dense(tensors).t(), bias)
        outputs = self.base.matmul(inputs, tensors, bias)
        a, b = getattr(tensors, names[0]).to(inputs.dtype), getattr(tensors, names[1]).to(inputs.dtype)
        if acting.dropout and tensors.in_training:
            inputs = functional.dropout(inputs, acting.dropout)
        narrow = mm(inputs, a) if inputs.ndim == 2 else functional.linear(inputs, a.t())
        return _added(outputs, narrow, b, acting.scale)

    def lookup(self, indices: torch.Tensor, tensors: Any) -> torch.Tensor:
        """The base's rows, plus scale times rows of A @ B: only the rows of A that are asked for meet B."""
        if Blocks.count and (rows := rows_of(tensors)) is not None:
            return lookup_by_rows(self.base, self._occurring(rows.groups), indices, tensors, rows)
        outputs = self.base.lookup(indices, tensors)
        acting, names = self._acting, self._names
        if acting is None:
            return outputs
        narrow = functional.embedding(indices, getattr(tensors, names[0])).to(outputs.dtype)
        if acting.dropout and tensors.in_training:
            narrow = functional.dropout(narrow, acting.dropout)
        return _added(outputs, narrow, getattr(tensors, names[1]).to(outputs.dtype), acting.scale)

    def dense(self, tensors: Any) -> torch.Tensor:
        """The base's kernel + scale A @ B of the active adapter, (I, U), in the dtype of the kernel."""
        kernel = self.base.dense(tensors)
        acting, names = self._acting, self._names
        if acting is None:
            return kernel
        a, b = getattr(tensors, names[0]), getattr(tensors, names[1])
        wide = torch.promote_types(kernel.dtype, a.dtype)
        return addmm(kernel.to(wide), a.to(wide), b.to(wide), alpha=acting.scale).to(kernel.dtype)

    def _sum_is_cheaper(self, inputs: torch.Tensor, tensors: Any) -> bool:
        """Whether base + scale A @ B first, then one product, takes fewer multiplications: R I U against N R (I + U)
        for N rows. Never in training, where it would take a gradient of the kernel's size, nor in 16 bits, where the
        sum would lose what A @ B adds, nor where the number of rows is not known."""
        if torch.is_grad_enabled() or inputs.dtype not in (torch.float32, torch.float64) or not self.base.is_matrix:
            return False
        count = inputs.numel()
        if type(count) is not int or torch.compiler.is_compiling() or torch.is_autocast_enabled(inputs.device.type):
            return False
        input_dim, units = getattr(tensors, self._names[0]).shape[0], getattr(tensors, self._names[1]).shape[1]
        return bool(count // input_dim * (input_dim + units) > input_dim * units)

    # --- other adapters ----------------------------------------------------------------------------------------------

    def adapter(self, name: str) -> Adapter:
        """The adapter of that name. ValueError if there is none."""
        for adapter in self.adapters:
            if adapter.name == name:
                return adapter
        known = ", ".join(repr(adapter.name) for adapter in self.adapters) or "none"
        raise ValueError(f"There is no adapter {name!r} here, only {known}.")

    def _occurring(self, names: Sequence[str]) -> list[Occurring]:
        known = {adapter.name: adapter for adapter in self.adapters}
        return [(known.get(name) or self.adapter(name), self.pair_names(name)) for name in names]

    def has(self, name: str | None) -> bool:
        """Whether there is an adapter of that name."""
        return any(adapter.name == name for adapter in self.adapters)

    def plus(self, adapter: Adapter) -> LowRank:
        """One more adapter, which does not act yet. ValueError if the name is taken."""
        if self.has(adapter.name):
            raise ValueError(f"There is an adapter {adapter.name!r} already: remove it first, or use another name.")
        return replace(self, adapters=(*self.adapters, adapter))

    def minus(self, name: str) -> KernelScheme:
        """Without the adapter of that name; without any, the base."""
        gone = self.adapter(name)
        left = tuple(adapter for adapter in self.adapters if adapter is not gone)
        active = None if self.active == name else self.active
        merged = None if self.merged == name else self.merged
        return replace(self, adapters=left, active=active, merged=merged) if left else self.base

    def with_changed(self, adapter: Adapter) -> LowRank:
        """With these numbers for the adapter of that name."""
        found = self.adapter(adapter.name)
        return replace(self, adapters=tuple(adapter if each is found else each for each in self.adapters))


def _added(outputs: torch.Tensor, narrow: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """outputs (B, ..., U) + scale narrow (B, ..., R) @ b (R, U), in one product."""
    if outputs.ndim == 2:
        return addmm(outputs, narrow, b, alpha=scale)
    if outputs.is_nested:  # has no view as a matrix; torch's TransformerEncoder makes such tensors of padded batches
        return outputs + functional.linear(narrow, (scale * b).t())
    flat = addmm(outputs.reshape(-1, b.shape[1]), narrow.reshape(-1, b.shape[0]), b, alpha=scale)
    return flat.reshape(outputs.shape)
