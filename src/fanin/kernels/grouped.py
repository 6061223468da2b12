"""Products and lookups in groups: consecutive rows share a matrix, and each group of rows has another.

They are custom operations of torch, so that tracers see one operation where devices differ in how they compute it.
`offsets` (G,), int32, says where each group of rows ends; the last is N. G groups, N rows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_DEVICES = ("cpu", "cuda")
_BYTES = 16  # rows of matrices begin at multiples of it


@torch.library.custom_op("fanin::grouped_mm", mutates_args=())
def grouped_mm(rows: Tensor, matrices: Tensor, offsets: Tensor) -> Tensor:
    """outputs[n] = rows[n] @ matrices[g] for each row n of group g: (N, K), (G, K, M) -> (N, M).

    Any layout and any sizes. One call of `torch.nn.functional.grouped_mm` where it knows dtype and device (float32,
    bfloat16 and float16 on CPU and CUDA), else one product for each group. Differentiable, also twice.

    >>> rows, matrices = torch.ones(3, 2), torch.stack([torch.eye(2), 5 * torch.eye(2)])
    >>> grouped_mm(rows, matrices, torch.tensor([1, 3], dtype=torch.int32)).tolist()
    [[1.0, 1.0], [5.0, 5.0], [5.0, 5.0]]
    """
    if _is_known(rows) and rows.shape[0]:
        return functional.grouped_mm(_aligned(rows), _aligned(matrices), offs=offsets).contiguous()
    return torch.cat([part @ matrix for part, matrix in zip(_parts(rows, offsets), matrices, strict=True)])


@torch.library.custom_op("fanin::grouped_outer", mutates_args=())
def grouped_outer(left: Tensor, right: Tensor, offsets: Tensor) -> Tensor:
    """outputs[g] = left[rows of g].T @ right[rows of g]: (N, K), (N, M) -> (G, K, M); 0 for a group without rows.

    Dtypes and devices as `grouped_mm`, whose gradient it is.
    """
    if _is_known(left) and left.shape[0]:
        return functional.grouped_mm(_aligned(left).t(), _aligned(right), offs=offsets).contiguous()
    pairs = zip(_parts(left, offsets), _parts(right, offsets), strict=True)
    return torch.stack([one.t() @ other for one, other in pairs])


@torch.library.custom_op("fanin::grouped_lookup", mutates_args=())
def grouped_lookup(tables: list[Tensor], indices: Tensor, offsets: Tensor) -> Tensor:
    """outputs[n] = tables[g][indices[n]] for each row n of group g: G tables (I, R_g), (N, ...) -> (N, ..., R).

    R is the largest R_g; narrower rows are filled up with zeros. The tables are not copied: they may be much larger
    than what is looked up. Differentiable.
    """
    width = max(table.shape[1] for table in tables)
    found = [
        functional.pad(functional.embedding(part, table), (0, width - table.shape[1]))
        for part, table in zip(_parts(indices, offsets), tables, strict=True)
    ]
    return torch.cat(found)


@torch.library.custom_op("fanin::grouped_lookup_backward", mutates_args=())
def _grouped_lookup_backward(
    gradient: Tensor, indices: Tensor, offsets: Tensor, sizes: list[int], ranks: list[int]
) -> list[Tensor]:
    """The gradients of the tables: sizes[g] x ranks[g]."""
    parts = zip(_parts(gradient, offsets), _parts(indices, offsets), sizes, ranks, strict=True)
    return [
        torch.ops.aten.embedding_dense_backward(part[..., :rank].contiguous(), places, size, -1, False)
        for part, places, size, rank in parts
    ]


def _is_known(tensor: Tensor) -> bool:
    """Whether torch's grouped product takes this dtype on this device."""
    return tensor.dtype in _DTYPES and tensor.device.type in _DEVICES


def _parts(rows: Tensor, offsets: Tensor) -> list[Tensor]:
    """The rows of each group."""
    return [rows[start:end] for start, end in pairwise([0, *offsets.tolist()])]


def _aligned(tensor: Tensor) -> Tensor:
    """The same values, laid out as torch's grouped product asks: no stride 0, and rows, or columns, that begin at
    multiples of 16 bytes."""
    step = _BYTES // tensor.itemsize
    (height, width), (down, across) = tensor.shape[-2:], tensor.stride()[-2:]
    by_rows = across == 1 and down >= max(1, width) and down % step == 0
    by_columns = down == 1 and across >= max(1, height) and across % step == 0
    if (by_rows or by_columns) and tensor.data_ptr() % _BYTES == 0 and (tensor.ndim == 2 or tensor.stride(0) > 0):
        return tensor
    wide = tensor.new_empty(*tensor.shape[:-1], -(-max(1, width) // step) * step)
    return wide[..., :width].copy_(tensor)


# --- for tracers ------------------------------------------------------------------------------------------------------


@grouped_mm.register_fake
def _(rows: Tensor, matrices: Tensor, offsets: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], matrices.shape[2])


@grouped_outer.register_fake
def _(left: Tensor, right: Tensor, offsets: Tensor) -> Tensor:
    return left.new_empty(offsets.shape[0], left.shape[1], right.shape[1])


@grouped_lookup.register_fake
def _(tables: list[Tensor], indices: Tensor, offsets: Tensor) -> Tensor:
    return tables[0].new_empty(*indices.shape, max(table.shape[1] for table in tables))


@_grouped_lookup_backward.register_fake
def _(gradient: Tensor, indices: Tensor, offsets: Tensor, sizes: list[int], ranks: list[int]) -> list[Tensor]:
    return [gradient.new_empty(size, rank) for size, rank in zip(sizes, ranks, strict=True)]


# --- gradients: each product is made of the other ---------------------------------------------------------------------


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _mm_backward(ctx: Any, gradient: Tensor) -> Any:
    rows, matrices, offsets = ctx.saved_tensors
    to_rows = grouped_mm(gradient, matrices.transpose(1, 2), offsets) if ctx.needs_input_grad[0] else None
    to_matrices = grouped_outer(rows, gradient, offsets) if ctx.needs_input_grad[1] else None
    return to_rows, to_matrices, None


def _outer_backward(ctx: Any, gradient: Tensor) -> Any:
    left, right, offsets = ctx.saved_tensors
    to_left = grouped_mm(right, gradient.transpose(1, 2), offsets) if ctx.needs_input_grad[0] else None
    to_right = grouped_mm(left, gradient, offsets) if ctx.needs_input_grad[1] else None
    return to_left, to_right, None


def _keep_places(ctx: Any, inputs: Any, output: Any) -> None:
    tables, indices, offsets = inputs
    ctx.sizes, ctx.ranks = [table.shape[0] for table in tables], [table.shape[1] for table in tables]
    ctx.save_for_backward(indices, offsets)


def _lookup_backward(ctx: Any, gradient: Tensor) -> Any:
    indices, offsets = ctx.saved_tensors
    return _grouped_lookup_backward(gradient, indices, offsets, ctx.sizes, ctx.ranks), None, None


grouped_mm.register_autograd(_mm_backward, setup_context=_keep)
grouped_outer.register_autograd(_outer_backward, setup_context=_keep)
grouped_lookup.register_autograd(_lookup_backward, setup_context=_keep_places)
