"""Weights without values, for loaders, which know how many bytes they have to fill them."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fanin.errors import TooLargeError


class _Allowance(threading.local):
    left: int | None = None


_allowance = _Allowance()


@contextmanager
def uninitialized_weights(limit: int) -> Iterator[None]:
    """Inside the block, in this thread, new weights are memory without values, at most `limit` bytes of it together.

    For loaders, which write every value afterwards. Nothing is drawn, but for layers with a `load_own_variables` of
    their own, which may leave weights alone. A weight beyond the limit is a TooLargeError, before its memory is taken.
    """
    before, _allowance.left = _allowance.left, limit
    try:
        yield
    finally:
        _allowance.left = before


def uninitialized_weight(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | None
) -> torch.Tensor | None:
    """Memory for the weight of that name, inside `uninitialized_weights`; else None."""
    left, size = _allowance.left, math.prod(shape) * dtype.itemsize
    if left is None:
        return None
    if size > left:
        raise TooLargeError(f"Weight {name} needs {size} bytes, and the file has only {left} left to fill it.")
    _allowance.left = left - size
    return torch.empty(shape, dtype=dtype, device=device)
