"""Low-rank adapters with another one in each row of a batch: two grouped products for each layer.

The rows are sorted once for all layers (`Rows`). Each layer takes its inputs in that order, stacks the A and B of the
adapters that occur, and adds what comes out to the rows of the base's outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fanin.kernels.adapter import Adapter
from fanin.kernels.base import KernelScheme
from fanin.kernels.grouped import grouped_lookup, grouped_mm
from fanin.kernels.rows import Rows, layer_of

Occurring = tuple[Adapter, tuple[str, str]]  # an adapter of `rows.groups`, and the names of its A and B


def matmul_by_rows(
    base: KernelScheme, adapters: Sequence[Occurring], inputs: Tensor, tensors: Any, bias: Tensor | None, rows: Rows
) -> Tensor:
    """outputs[n] = base(inputs)[n] + scale_g (inputs[n] @ A_g) @ B_g for the adapter g of each row n of the batch.

    inputs (B, ..., I) -> (B, ..., U), in the dtype of the base's outputs. ValueError, naming the layer, for inputs of
    another number of rows.
    """
    layer = layer_of(tensors)
    rows.check(layer, inputs, 2)
    outputs = base.matmul(inputs, tensors, bias)
    if not rows.groups:
        return outputs
    rows = rows.on(inputs.device)
    acting, a, b = _pairs(adapters, layer)
    chosen = inputs.index_select(0, rows.order).to(outputs.dtype)
    if layer.in_training:
        chosen = _dropped(chosen, acting, rows)
    matrices = _stacked(a, 1).to(outputs.dtype)
    narrow = grouped_mm(chosen.flatten(0, -2), matrices, _offsets(chosen, rows))
    return _added(outputs, narrow.reshape(*chosen.shape[:-1], matrices.shape[2]), b, acting, rows)


def lookup_by_rows(
    base: KernelScheme, adapters: Sequence[Occurring], indices: Tensor, tensors: Any, rows: Rows
) -> Tensor:
    """The base's rows, plus scale_g A_g[indices[n]] @ B_g for the adapter g of each row n of the batch.

    indices (B, ...) -> (B, ..., U). Raises as `matmul_by_rows`.
    """
    layer = layer_of(tensors)
    rows.check(layer, indices, 1)
    outputs = base.lookup(indices, tensors)
    if not rows.groups:
        return outputs
    rows = rows.on(indices.device)
    acting, a, b = _pairs(adapters, layer)
    narrow = grouped_lookup(a, indices.index_select(0, rows.order), rows.offsets).to(outputs.dtype)
    if layer.in_training:
        narrow = _dropped(narrow, acting, rows)
    return _added(outputs, narrow, b, acting, rows)


def _added(outputs: Tensor, narrow: Tensor, b: Sequence[Tensor], acting: Sequence[Adapter], rows: Rows) -> Tensor:
    """outputs (B, ..., U) + scale narrow (N, ..., R) @ B, in the N rows that have an adapter."""
    narrow = (narrow * _in_rows([each.scale for each in acting], narrow, rows)).to(outputs.dtype)
    matrices = _stacked(b, 0).to(outputs.dtype)
    wide = grouped_mm(narrow.flatten(0, -2), matrices, _offsets(narrow, rows))
    return outputs.index_add(0, rows.order, wide.reshape(*narrow.shape[:-1], matrices.shape[2]))


def _pairs(adapters: Sequence[Occurring], layer: Any) -> tuple[list[Adapter], list[Tensor], list[Tensor]]:
    """The adapters, their As and their Bs as they are stored, to be cast all at once."""
    names = [pair for _, pair in adapters]
    return [each for each, _ in adapters], [getattr(layer, a) for a, _ in names], [getattr(layer, b) for _, b in names]


def _stacked(matrices: Sequence[Tensor], axis: int) -> Tensor:
    """(G, ..., ...): one copy of a size that is small beside the kernel; ranks, along `axis`, filled up with zeros."""
    rank = max(matrix.shape[axis] for matrix in matrices)
    return torch.stack([_filled(matrix, axis, rank - matrix.shape[axis]) for matrix in matrices])


def _filled(matrix: Tensor, axis: int, missing: int) -> Tensor:
    if not missing:
        return matrix
    return functional.pad(matrix, (0, missing) if axis == 1 else (0, 0, 0, missing))


def _offsets(sorted_rows: Tensor, rows: Rows) -> Tensor:
    """Where each adapter's rows end once (N, ..., K) is seen as a matrix."""
    each = sorted_rows.shape[1:-1].numel()
    return rows.offsets if each == 1 else rows.offsets * each


def _in_rows(numbers: Sequence[float], sorted_rows: Tensor, rows: Rows) -> float | Tensor:
    """A number of each adapter for its rows (N, 1, ..., 1); the number itself where all agree."""
    if len(set(numbers)) == 1:
        return numbers[0]
    dtype = torch.promote_types(sorted_rows.dtype, torch.float32)
    table = torch.tensor(numbers, dtype=dtype, device=sorted_rows.device)
    return table.index_select(0, rows.group).reshape(-1, *[1] * (sorted_rows.ndim - 1))


def _dropped(sorted_rows: Tensor, acting: Sequence[Adapter], rows: Rows) -> Tensor:
    """With each adapter's fraction of its rows set to 0, the rest scaled up."""
    rates = [each.dropout for each in acting]
    rate = _in_rows(rates, sorted_rows, rows)
    if not isinstance(rate, Tensor):
        return functional.dropout(sorted_rows, rate) if rate else sorted_rows
    keep = 1 - rate
    return (sorted_rows * (torch.bernoulli(keep.expand_as(sorted_rows)) / keep)).to(sorted_rows.dtype)
