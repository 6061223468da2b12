"""Normalizations, and the like, as they are traced: on tensors without gaps, in the precision of their weights.

Of others PyTorch's fake tensors tell a layout or a dtype that the kernels do not give: memory would be planned wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from fanin.program.effects import aten

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def _plainly(operation: Any, count: int, takes_channels_last: bool = False) -> Callable[..., Any]:
    """The operation with its first `count` arguments made plain; the first result gets their dtype back."""

    def traced(*args: Any) -> Any:
        data = args[:count]
        dtypes = [one.dtype for one in args if isinstance(one, Tensor) and one.is_floating_point()]
        dtype = reduce(torch.promote_types, dtypes)
        is_plain = all(_is_dense(one, takes_channels_last) for one in data)
        if is_plain and len({*dtypes}) == 1:
            return NotImplemented  # as it is
        results = operation(*(_made_plain(one, dtype) for one in data), *args[count:])
        if isinstance(results, Tensor):
            return results.to(data[0].dtype)
        first, *rest = results
        return (None if first is None else first.to(data[0].dtype), *rest)

    return traced


def _is_dense(one: Tensor, takes_channels_last: bool) -> bool:
    given = _FORMATS.get(one.dim()) if takes_channels_last else None
    return one.is_contiguous() or (given is not None and one.is_contiguous(memory_format=given))


def _made_plain(one: Tensor, dtype: torch.dtype) -> Tensor:
    return (one.to(dtype) if one.is_floating_point() else one).contiguous()


_KNOWN = [  # operation, how many tensors it works on, whether their channels may come last in memory
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
PLAINLY: dict[Any, Callable[..., Any]] = {one: _plainly(one, count, formats) for one, count, formats in _KNOWN}
