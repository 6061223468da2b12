"""Looking at all targets once, on the host, before anything is trained on them.

Each check raises `DataError`: which array, which row, what it holds, what was expected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fanin.errors import DataError

Array = NDArray[Any]
Shape = Sequence[int | None]
_CHUNK = 1 << 20  # values looked at in one go, so that a check needs no memory to speak of
SUM_TOLERANCE = 1e-3


def _rows(y: Any, name: str) -> Array:
    if isinstance(y, torch.Tensor):
        y = y.detach().cpu()
        y = (y.float() if y.dtype == torch.bfloat16 else y).numpy()
    found = np.asarray(y)
    if found.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {found.dtype}; expected numbers.")
    if found.ndim == 0:
        raise DataError(f"{name} is a single number; expected one target per row.")
    return found


def _text(shape: Sequence[Any]) -> str:
    parts = ["N", *("?" if d is None else str(d) for d in shape[1:])]
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def _equal(found: Sequence[int], expected: Shape) -> bool:
    """Whether two shapes agree beyond the first dimension; None in `expected` is any size."""
    pairs = zip(found[1:], expected[1:], strict=False)
    return len(found) == len(expected) and all(b is None or a == b for a, b in pairs)


def _expect_each(y: Array, name: str, good: Callable[[Array], Array], expected: str) -> None:
    """Raise for the first row with a value that is not `good`."""
    step = max(1, _CHUNK // max(1, y[:1].size))
    for start in range(0, len(y), step):
        part = y[start : start + step].reshape(min(step, len(y) - start), -1)
        fine = good(part)
        if not fine.all():
            row, column = np.argwhere(~fine)[0]
            raise DataError(f"{name}: row {start + row} holds {part[row, column].item()!r}; expected {expected}.")


def _expect_shape(y: Array, name: str, output_shape: Shape, hint: str = "") -> None:
    """Targets shaped like the output: equal, or with a last dimension of 1 that only one of the two has."""
    without_last = len(output_shape) > 1 and output_shape[-1] in (1, None) and _equal(y.shape, output_shape[:-1])
    with_one_more = y.ndim > 1 and y.shape[-1] == 1 and _equal(y.shape[:-1], output_shape)
    if not (_equal(y.shape, output_shape) or without_last or with_one_more):
        shorter = f" or {_text(output_shape[:-1])}" if [*output_shape[1:]][-1:] == [1] else ""
        raise DataError(
            f"{name} has shape {tuple(y.shape)}, the model's output {_text(output_shape)}; expected targets of shape "
            f"{_text(output_shape)}{shorter} (nothing is broadcast).{hint}"
        )


def check_finite(y: Any, output_shape: Shape, name: str) -> None:
    """Targets of a regression: the shape of the output, all finite."""
    found = _rows(y, name)
    _expect_shape(found, name, output_shape)
    _expect_each(found, name, np.isfinite, "finite numbers")


def check_binary(y: Any, output_shape: Shape, name: str) -> None:
    """Binary or multi-label targets: the shape of the output, all within [0, 1]."""
    found = _rows(y, name)
    hint = ""
    if found.shape[1:] in ((), (1,)) and len(output_shape) == 2 and (output_shape[1] or 0) > 1:
        hint = " For one class id per row, use SparseCategoricalCrossentropy."
    _expect_shape(found, name, output_shape, hint)
    _expect_each(found, name, lambda part: (part >= 0) & (part <= 1), "values within [0, 1]")


def check_categorical(y: Any, output_shape: Shape, name: str, axis: int = -1) -> None:
    """One-hot or soft targets: exactly the shape of the output, within [0, 1], summing to 1 along `axis`."""
    found = _rows(y, name)
    if output_shape[axis] == 1:
        raise DataError(
            f"{name}: the model's output has one class, {_text(output_shape)}, so its probability is always 1 and "
            "nothing can be learned. Use BinaryCrossentropy for one unit."
        )
    if not _equal(found.shape, output_shape):
        hint = ""
        if _equal(found.shape, output_shape[:-1]) or _equal(found.shape, [*output_shape[:-1], 1]):
            hint = " For class ids, use SparseCategoricalCrossentropy."
        raise DataError(
            f"{name} has shape {tuple(found.shape)}; expected that of the model's output, {_text(output_shape)}.{hint}"
        )
    _expect_each(found, name, lambda part: (part >= 0) & (part <= 1), "values within [0, 1]")
    step = max(1, _CHUNK // max(1, found[:1].size))
    for start in range(0, len(found), step):
        sums = found[start : start + step].sum(axis=axis, dtype=np.float64)
        sums = sums.reshape(len(sums), -1)
        off = np.abs(sums - 1.0) > SUM_TOLERANCE
        if off.any():
            row, column = np.argwhere(off)[0]
            raise DataError(
                f"{name}: row {start + row} sums to {sums[row, column]:.6g} over its {output_shape[axis]} classes; "
                "expected 1. For several labels in a row use BinaryCrossentropy, to weight rows sample_weight."
            )


def check_class_ids(y: Any, output_shape: Shape, name: str, ignore_class: int | None = None, axis: int = -1) -> None:
    """Class ids: whole numbers in [0, C), or `ignore_class`; the shape of the output without `axis`, or with 1 there.

    Whole numbers kept as floats are taken; booleans are not.
    """
    found = _rows(y, name)
    axis %= len(output_shape)
    classes = output_shape[axis]
    without = [*output_shape[:axis], *output_shape[axis + 1 :]]
    single = [*output_shape[:axis], 1, *output_shape[axis + 1 :]]
    if not (_equal(found.shape, without) or _equal(found.shape, single)):
        hint = ""
        if _equal(found.shape, output_shape):
            hint = " For one-hot targets, use CategoricalCrossentropy."
        raise DataError(
            f"{name} has shape {tuple(found.shape)}, the model's output {_text(output_shape)}; expected class ids of "
            f"shape {_text(without)} or {_text(single)}.{hint}"
        )
    if found.dtype.kind == "b":
        raise DataError(f"{name} has dtype bool; expected class ids. Convert it to integers if True means class 1.")
    top = np.inf if classes is None else classes

    def good(part: Array) -> Array:
        fine: Array = (part >= 0) & (part < top)
        if part.dtype.kind == "f":
            fine &= part == np.floor(part)
        return fine if ignore_class is None else fine | (part == ignore_class)

    span = "whole numbers from 0" if classes is None else f"class ids from 0 to {classes - 1}"
    also = "" if ignore_class is None else f", or {ignore_class} to ignore a row"
    _expect_each(found, name, good, f"{span}{also} (the model's output is {_text(output_shape)})")
