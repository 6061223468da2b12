"""The loop of `predict`: each batch's outputs are written straight into the arrays that are returned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fanin.callbacks import CallbackList
from fanin.errors import DataError
from fanin.graph.tree import tree_map
from fanin.kernels.rows import rows_tensors
from fanin.layers.base.devices import device_of
from fanin.layers.base.variables import to_numpy
from fanin.training.data import Arrays, Stream
from fanin.training.prediction import TILE, Prediction
from fanin.training.progress import Progress

Array = np.ndarray[Any, Any]
_LEAST_ROWS = 8192  # below, finding out takes longer than it saves


def rows_of_a_run(prediction: Prediction, data: Arrays | Stream, batch_size: int, is_free: bool) -> int:
    """Rows in one run: `batch_size`, or as many as suit the caches, if the model works row by row.

    Args:
        prediction: what is run.
        data: all rows.
        batch_size: the most rows that were asked for.
        is_free: whether none were asked for: then it may be more.
    """
    total = data.rows if isinstance(data, Arrays) else 0
    if (total if is_free else min(total, batch_size)) < _LEAST_ROWS:
        return batch_size
    assert isinstance(data, Arrays)
    home = device_of(prediction.module)
    suited = prediction.rows_at_once(tree_map(lambda leaf: leaf[:1].to(home), data.x))
    if suited is None:
        return batch_size
    return suited if is_free else min(batch_size, suited)


class Outputs:
    """Collects the outputs: in one array for each, if the number of rows is known, else batch by batch."""

    def __init__(self, rows: int | None, out: Any):
        self._rows, self._given = rows, out
        self._arrays: list[Array] | None = None
        self._parts: list[Any] = []
        self._structure: Any = None
        self._done = 0

    def slices(self, shapes: list[Tensor], structure: Any, rows: int) -> list[Tensor] | None:
        """The slices of the arrays for the next `rows` rows, as tensors; None if outputs cannot be written there."""
        if self._arrays is None:
            self._arrays = self._make(shapes, structure)
        if not self._arrays or any(one.dtype == torch.bfloat16 for one in shapes):
            return None
        if any(min(array.strides, default=0) < 0 for array in self._arrays):  # torch has no negative strides
            return None
        return [torch.from_numpy(array[self._done : self._done + rows]) for array in self._arrays]

    def add(self, outputs: Any, rows: int, is_written: bool) -> None:
        """Add the outputs of a batch; `is_written` if they are in the slices already."""
        if not is_written:
            found, structure = pytree.tree_flatten(tree_map(to_numpy, outputs))
            if self._arrays is None:
                self._arrays = self._make(pytree.tree_leaves(outputs), structure)
            if not self._arrays:
                self._parts.append(found)
            for array, part in zip(self._arrays, found, strict=False):
                array[self._done : self._done + rows] = part
        self._done += rows

    def _make(self, shapes: list[Tensor], structure: Any) -> list[Array]:
        self._structure = structure
        if self._given is not None:
            return _checked(self._given, shapes, self._rows)
        if self._rows is None or any(not one.dim() for one in shapes):
            return []
        return [np.empty((self._rows, *one.shape[1:]), _numpy_dtype(one)) for one in shapes]

    def result(self) -> Any:
        """All rows, in the structure of the outputs."""
        if self._given is not None:
            return self._given
        arrays = [a if self._done == len(a) else a[: self._done] for a in self._arrays or ()]
        arrays = arrays or [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        return pytree.tree_unflatten(arrays, self._structure)


def _checked(given: Any, shapes: list[Tensor], rows: int | None) -> list[Array]:
    arrays = pytree.tree_leaves(given)
    if len(arrays) != len(shapes):
        raise ValueError(f"predict: out has {len(arrays)} arrays, the model {len(shapes)} outputs.")
    for array, one in zip(arrays, shapes, strict=True):
        expected = (rows, *one.shape[1:])
        fits = (
            isinstance(array, np.ndarray) and array.shape[1:] == expected[1:] and (rows is None or len(array) == rows)
        )
        if not fits or array.dtype != _numpy_dtype(one) or not array.flags.writeable:
            found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else repr(array)
            raise ValueError(
                f"predict: out must be a writeable array of {_numpy_dtype(one)} {expected}, found {found}."
            )
    return arrays


def _numpy_dtype(one: Tensor) -> np.dtype[Any]:
    dtype = torch.float32 if one.dtype == torch.bfloat16 else one.dtype
    return torch.empty(0, dtype=dtype, device="cpu").numpy().dtype


def run(
    prediction: Prediction | Tiled, data: Arrays | Stream, batches: Iterator[Any], hooks: CallbackList,
    progress: Progress, out: Any, is_complete: bool,
) -> Any:  # fmt: skip
    """Predict batch by batch."""
    found = Outputs(data.rows if isinstance(data, Arrays) and is_complete else None, out)
    model: Any = prediction.module
    model.stop_predicting = False
    number = -1
    for number, batch in enumerate(batches):
        hooks.call("on_predict_batch_begin", number, {})
        outputs, is_written = _one_batch(prediction, batch.x, batch.size, found)
        found.add(outputs, batch.size, is_written)
        if hooks.wants("on_predict_batch_end"):
            hooks.call("on_predict_batch_end", number, {"outputs": outputs})
        progress.advance(dict)
        if model.stop_predicting:
            break
    if number < 0:
        if not isinstance(data, Arrays):
            raise DataError("The data is empty: it gave no batch, so not even the shape of a row is known.")
        home = device_of(prediction.module)
        found.add(prediction.eager(tree_map(lambda leaf: leaf.to(home), data.x)), 0, False)
    return found.result()


def _one_batch(prediction: Prediction | Tiled, x: Any, rows: int, found: Outputs) -> tuple[Any, bool]:
    compiled = prediction.program(x)
    if compiled is not None:
        program, structure = compiled
        slices = found.slices(program.results, structure, rows)
        if slices is not None and _fit(program.results, slices):
            try:
                program.run_into([*pytree.tree_leaves(x), *rows_tensors()], slices)
            except IndexError:
                return prediction.eager(x), False  # its message names the layer
            return pytree.tree_unflatten(slices, structure), True
    return prediction(x), False


def _fit(results: list[Tensor], slices: list[Tensor]) -> bool:
    """Whether a program can write its results into these slices, which are on the CPU."""
    return all(
        result.shape == target.shape and result.device == target.device
        for result, target in zip(results, slices, strict=True)
    )


class Tiled:
    """Deterministic prediction, in tiles of a fixed number of rows; the last tile is padded with copies of a row.

    The same program then computes every row, so a row's outputs do not depend on its batch; nor on its position in the
    tile, which is tried with equal rows. Where they do, each row is computed by itself.
    """

    def __init__(self, prediction: Prediction):
        self.eager, self.module = prediction.eager, prediction.module
        self._prediction = prediction

    def program(self, x: Any) -> None:
        """None: a batch takes several runs, not one program."""

    def __call__(self, x: Any) -> Any:
        """The outputs for tensors, as new tensors."""
        tile = TILE if self._treats_rows_alike(x) else 1
        rows = pytree.tree_leaves(x)[0].shape[0]
        parts = []
        for start in range(0, rows, tile):
            size = min(tile, rows - start)
            part = pytree.tree_map(lambda leaf: _padded(leaf[start : start + tile], tile), x)  # noqa: B023
            outputs = self._prediction(part)
            parts.append(pytree.tree_map(lambda leaf: leaf[:size], outputs))  # noqa: B023
        columns = [pytree.tree_leaves(part) for part in parts]
        whole = [torch.cat(column) for column in zip(*columns, strict=True)]
        return pytree.tree_unflatten(whole, pytree.tree_structure(parts[0]))

    def _treats_rows_alike(self, x: Any) -> bool:
        """Whether equal rows in a tile get equal outputs, tried with numbers that use all digits."""
        drawn = torch.Generator("cpu").manual_seed(0)

        def equal_rows(leaf: Tensor) -> Tensor:
            row = leaf[:1].cpu()
            if row.is_floating_point():
                row = torch.randn(row.shape, generator=drawn, device="cpu").to(row.dtype)
            return row.to(leaf.device).expand(TILE, *leaf.shape[1:]).contiguous()

        outputs = self._prediction(pytree.tree_map(equal_rows, x))
        return all(bool((one == one[:1]).all()) for one in pytree.tree_leaves(outputs))


def _padded(rows: Tensor, tile: int) -> Tensor:
    """The rows padded to a tile, in new memory: the alignment of memory can change bits, too."""
    missing = tile - rows.shape[0]
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])
