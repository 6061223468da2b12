"""Normalizations, and the like, are traced on contiguous tensors of one dtype, that of their weights.

For other arguments PyTorch's fake tensors predict another layout or dtype than the kernels return, so that memory would
be planned wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from fanin.program.effects import aten

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def _on_contiguous(operation: Any, count: int, takes_channels_last: bool = False) -> Callable[..., Any]:
    """The operation with its first `count` arguments made contiguous and promoted; the first result is cast back."""

    def traced(*args: Any) -> Any:
        data = args[:count]
        dtypes = [one.dtype for one in args if isinstance(one, Tensor) and one.is_floating_point()]
        dtype = reduce(torch.promote_types, dtypes)
        is_supported = all(_is_dense(one, takes_channels_last) for one in data)
        if is_supported and len({*dtypes}) == 1:
            return NotImplemented  # trace the operation itself
        results = operation(*(_as_contiguous(one, dtype) for one in data), *args[count:])
        if isinstance(results, Tensor):
            return results.to(data[0].dtype)
        first, *rest = results
        return (None if first is None else first.to(data[0].dtype), *rest)

    return traced


def _is_dense(one: Tensor, takes_channels_last: bool) -> bool:
    memory_format = _FORMATS.get(one.dim()) if takes_channels_last else None
    return one.is_contiguous() or (memory_format is not None and one.is_contiguous(memory_format=memory_format))


def _as_contiguous(one: Tensor, dtype: torch.dtype) -> Tensor:
    return (one.to(dtype) if one.is_floating_point() else one).contiguous()


_OPERATIONS = [  # operation, how many tensors it works on, whether their channels may come last in memory
    (aten.native_batch_norm.default, 1, True),
    (aten.native_batch_norm_backward.default, 2, True),
    (aten.native_layer_norm.default, 1, False),
    (aten.native_layer_norm_backward.default, 2, False),
    (aten.native_group_norm.default, 1, True),
    (aten.native_group_norm_backward.default, 2, True),
    (aten.max_unpool2d.default, 2, False),
    (aten.max_unpool3d.default, 2, False),
]
# Operation -> the function to trace in its place.
NORMALIZATIONS: dict[Any, Callable[..., Any]] = {
    one: _on_contiguous(one, count, formats) for one, count, formats in _OPERATIONS
}
