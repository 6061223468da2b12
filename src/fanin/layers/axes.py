"""Axes of a shape, counted from the front or, if negative, from the end."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any


def checked_axes(axes: Any, who: str) -> list[int]:
    """One axis or several as a list of ints, in the order given; a TypeError naming `who` for anything else."""
    try:
        return [operator.index(axis) for axis in (axes if isinstance(axes, (list, tuple)) else [axes])]
    except TypeError:
        raise TypeError(f"{who} must be an integer or several, found {axes!r}.") from None


def from_front(axes: Sequence[int], rank: int, who: str) -> tuple[int, ...]:
    """The axes of a shape of that rank, counted from the front and sorted.

    ValueError, naming `who`, for an axis that the shape lacks or that comes twice.
    """
    outside = [axis for axis in axes if not -rank <= axis < rank]
    if outside:
        raise ValueError(f"{who}: axis {outside[0]} does not exist in an input of rank {rank}.")
    found = tuple(sorted(axis % rank for axis in axes))
    if len(set(found)) < len(found):
        raise ValueError(f"{who}: axes {list(axes)} name the same axis twice in an input of rank {rank}.")
    return found


def known_sizes(shape: Sequence[int | None], axes: Sequence[int], who: str) -> tuple[int, ...]:
    """The sizes of a shape on these axes; ValueError, naming `who`, if one is unknown."""
    sizes = [shape[axis] for axis in axes]
    if None in sizes:
        raise ValueError(f"{who}: the sizes of axes {list(axes)} must be known, found shape {tuple(shape)}.")
    return tuple(int(size) for size in sizes if size is not None)


def smallest_shape(axes: Sequence[int], sizes: Sequence[int]) -> tuple[int | None, ...] | None:
    """A shape with these sizes on these axes, of the smallest rank from 2 on.

    None where no shape has them, or where negative axes and others mix, so that the rank would matter.
    """
    if len(axes) != len(sizes) or len({axis < 0 for axis in axes}) > 1:
        return None
    shape: list[int | None] = [None] * max(2, *(axis + 1 if axis >= 0 else -axis for axis in axes), 0)
    for axis, size in zip(sorted(axes), sizes, strict=True):
        shape[axis] = size
    return tuple(shape)
