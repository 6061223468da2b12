"""Data for training and prediction, in two forms: arrays in memory, and streams of batches.

Arrays are never fed row by row: an epoch is one permutation, a batch one index_select (or a view, without shuffling).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fanin.dtypes import widest_float
from fanin.errors import DataError
from fanin.graph.tree import leaves, tree_map
from fanin.layers.convert import as_tensor, checked_cast

_CHUNK = 1 << 22  # numbers looked at together in the search for NaN


class Batch(NamedTuple):
    """Inputs, targets (or None) and sample weights (or None) of one step; `size` is the number of rows."""

    x: Any
    y: Any
    weight: Any
    size: int


@dataclass(frozen=True)
class Arrays:
    """Rows in memory: tensors, or nested lists and dicts of them, all of the same length."""

    x: Any
    y: Any
    weight: Any
    rows: int

    def batches(self, batch_size: int, shuffle: bool = False, reuse: bool = False) -> Iterator[Batch]:
        """All rows once, the last batch shorter where they do not divide.

        Args:
            batch_size: rows in a batch.
            shuffle: whether the rows come in a new order.
            reuse: whether shuffled batches of one size are the same tensors, filled anew: for readers that keep none.
        """
        if not shuffle:
            for start in range(0, self.rows, batch_size):
                yield self._batch(_narrow(start, min(batch_size, self.rows - start)), batch_size, start)
            return
        device = next(leaf.device for leaf in leaves(self.x))
        order = torch.randperm(self.rows).to(device)
        full, rest = divmod(self.rows, batch_size)
        batch: Batch | None = None
        for index in order[: full * batch_size].view(full, batch_size).unbind(0):
            if batch is None or not reuse:
                batch = self._batch(_select(index), batch_size, 0)
                targets = [leaf for leaf in leaves(tuple(batch[:3])) if leaf is not None]
                sources = [leaf for leaf in leaves((self.x, self.y, self.weight)) if leaf is not None]
            else:
                for source, target in zip(sources, targets, strict=True):
                    torch.index_select(source, 0, index, out=target)
            yield batch
        if rest:
            yield self._batch(_select(order[full * batch_size :]), batch_size, full * batch_size)

    def _batch(self, take: Callable[[torch.Tensor], torch.Tensor], batch_size: int, start: int) -> Batch:
        x, y, weight = (_mapped(take, part) for part in (self.x, self.y, self.weight))
        return Batch(x, y, weight, min(batch_size, self.rows - start))

    def without_weights(self) -> Arrays:
        """The same rows, all of weight 1."""
        return Arrays(self.x, self.y, None, self.rows)

    def split(self, fraction: float) -> tuple[Arrays, Arrays]:
        """The first rows, and the last `fraction` of them, as Keras splits."""
        at = int(self.rows * (1.0 - fraction))
        if not 0 < at < self.rows:
            raise ValueError(
                "validation_split must be above 0 and below 1 and leave a row on each side, found "
                f"{fraction} for {self.rows} rows."
            )
        return self._part(_narrow(0, at), at), self._part(_narrow(at, self.rows - at), self.rows - at)

    def _part(self, take: Callable[[torch.Tensor], torch.Tensor], rows: int) -> Arrays:
        x, y, weight = (_mapped(take, part) for part in (self.x, self.y, self.weight))
        return Arrays(x, y, weight, rows)

    def steps(self, batch_size: int) -> int:
        """The number of batches."""
        return -(-self.rows // batch_size)


class Stream:
    """Batches from a DataLoader, a Dataset or a generator. A generator goes on where the last epoch stopped.

    `check` is called with each batch and where it stands ("batch 3") before it is given out, but not with one of a
    generator that `peek` gave.
    """

    def __init__(self, source: Iterable[Any], prepare: Callable[[Any, str], Batch]):
        self._source = source
        self._prepare = prepare
        self._once = iter(source) is source
        self._waiting: list[Batch] = []
        self._first: Batch | None = None  # what `peek` gave
        self.check: Callable[[Batch, str], None] = lambda batch, where: None
        self._running = iter(source) if self._once else None

    def peek(self) -> Batch:
        """The first batch, which `batches` still gives, also when it is asked again; ValueError if there is none."""
        if self._first is None:
            for item in self._running if self._running is not None else iter(self._source):
                self._first = self._prepare(item, "batch 0")
                break
            else:
                raise ValueError("The data is empty: it gave no batch.")
            if self._once:
                self._waiting.append(self._first)
        return self._first

    def batches(self) -> Iterator[Batch]:
        """One epoch."""
        number = len(self._waiting)
        while self._waiting:
            yield self._waiting.pop()
        for item in self._running if self._running is not None else iter(self._source):
            batch = self._prepare(item, f"batch {number}")
            self.check(batch, f"batch {number}")
            yield batch
            number += 1

    def steps(self) -> int | None:
        """The number of batches, if the source knows."""
        try:
            return len(self._source)  # type: ignore[arg-type]
        except TypeError:  # a generator, or a DataLoader of an IterableDataset
            return None


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches with their tensors on a device."""
    for batch in batches:
        x, y, weight = (_mapped(lambda leaf: leaf.to(device), part) for part in batch[:3])
        yield Batch(x, y, weight, batch.size)


def _mapped(take: Callable[[torch.Tensor], torch.Tensor], part: Any) -> Any:
    return tree_map(lambda leaf: None if leaf is None else take(leaf), part)


def _narrow(start: int, size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.narrow(0, start, size)


def _select(index: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.index_select(0, index)


# --- reading what the user gave -----------------------------------------------------------------------------


class Reader:
    """Turns what `fit`, `evaluate` and `predict` are given into Arrays or a Stream.

    Args:
        dtype: floats become this dtype; integers stay.
        device: where the data goes; None for where it is, for data that is read once.
        class_weight: class -> weight of its rows.
        finite: whether NaN and Inf are refused.
        batch_size: for a Dataset.
        shuffle: likewise.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        device: torch.device | None,
        class_weight: Mapping[int, float] | None = None,
        finite: bool = True,
        batch_size: int = 32,
        shuffle: bool = False,
    ):
        self.dtype = dtype
        self.device = device
        self.class_weight = class_weight
        self.finite = finite
        self.batch_size = batch_size
        self.shuffle = shuffle

    def read(self, x: Any, y: Any = None, sample_weight: Any = None) -> Arrays | Stream:
        """Arrays from arrays and a TensorDataset; a Stream from everything else that can be iterated over."""
        if isinstance(x, TensorDataset):
            parts = x.tensors
            return self.arrays(*parts[:3])
        if isinstance(x, IterableDataset):
            x = DataLoader(x, batch_size=self.batch_size)
        elif isinstance(x, Dataset):
            x = DataLoader(x, batch_size=self.batch_size, shuffle=self.shuffle)
        if isinstance(x, DataLoader) or _is_iterator(x):
            if y is not None or sample_weight is not None:
                raise ValueError(f"y and sample_weight come with the batches of a {type(x).__name__}; give x alone.")
            return Stream(x, self.batch)
        if x is None:
            raise ValueError("x is missing: give arrays, a Dataset, a DataLoader or a generator.")
        return self.arrays(x, y, sample_weight)

    def arrays(self, x: Any, y: Any = None, sample_weight: Any = None) -> Arrays:
        """Rows in memory, checked: equal lengths, finite numbers."""
        inputs = self._structure(x, "x")
        targets = None if y is None else self._structure(y, "y")
        rows = _rows(inputs, "x")
        if targets is not None:
            _same_length(targets, "y", rows)
        weight = self._weights(targets, sample_weight, rows)
        return Arrays(inputs, targets, weight, rows)

    def batch(self, item: Any, where: str) -> Batch:
        """One batch of a stream: x, (x, y) or (x, y, sample_weight)."""
        parts = tuple(item) if isinstance(item, (tuple, list)) else (item,)
        if len(parts) > 3:
            raise ValueError(f"{where}: expected (x, y) or (x, y, sample_weight), found {len(parts)} parts.")
        try:
            arrays = self.arrays(*parts)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        return Batch(arrays.x, arrays.y, arrays.weight, arrays.rows)

    def _structure(self, value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            return {key: self._structure(item, f"{name}[{key!r}]") for key, item in value.items()}
        if isinstance(value, (list, tuple)) and _are_arrays(value):
            return [self._structure(item, f"{name}[{i}]") for i, item in enumerate(value)]
        return None if value is None else self._tensor(value, name)

    def _tensor(self, value: Any, name: str) -> torch.Tensor:
        from_outside = not isinstance(value, torch.Tensor)
        tensor = as_tensor(value.toarray() if is_sparse(value) else value, name)
        if tensor.dim() == 0:
            raise DataError(f"{name}: expected one row for each sample, found a single number.")
        if tensor.is_floating_point():
            if self.finite:
                check_finite(tensor, name)
            tensor = checked_cast(tensor, self.dtype, name) if from_outside else tensor.to(self.dtype)
        return self._placed(tensor.detach())

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.device is None else tensor.to(self.device)

    def _weights(self, targets: Any, sample_weight: Any, rows: int) -> Any:
        if self.class_weight is not None:
            if sample_weight is not None:
                raise ValueError("Give class_weight or sample_weight, not both.")
            return self._placed(weights_of_classes(targets, self.class_weight).to(self.dtype))
        return None if sample_weight is None else self._sample_weight(sample_weight, "sample_weight", rows)

    def _sample_weight(self, given: Any, name: str, rows: int) -> Any:
        """One weight for each row, or a list or dict of such for the outputs; None for an output stays None."""
        if given is None:
            return None
        if isinstance(given, Mapping):
            return {key: self._sample_weight(item, f"{name}[{key!r}]", rows) for key, item in given.items()}
        if isinstance(given, (list, tuple)) and any(getattr(item, "ndim", 0) for item in given):
            return [self._sample_weight(item, f"{name}[{place}]", rows) for place, item in enumerate(given)]
        weight = as_tensor(given, name)
        _same_length(weight, name, rows)
        check_finite(weight, name)
        return self._placed(weight.to(self.dtype))


def is_sparse(value: Any) -> bool:
    """Whether this is one of scipy's sparse matrices, which become dense."""
    return hasattr(value, "toarray") and hasattr(value, "nnz")


def _are_arrays(values: Sequence[Any]) -> bool:
    """Whether this is a list of arrays, one for each input or output; None for an output without targets. Beside
    arrays there may be lists and dicts of arrays."""
    given = [item for item in values if item is not None]
    arrays = [hasattr(item, "shape") and item.ndim > 0 for item in given]
    return any(arrays) and all(map(_is_structure, given))


def _is_structure(item: Any) -> bool:
    if isinstance(item, (list, tuple)):
        return _are_arrays(item)
    return isinstance(item, Mapping) or (hasattr(item, "shape") and item.ndim > 0)


def _is_iterator(value: Any) -> bool:
    if is_sparse(value):
        return False
    iterable = hasattr(value, "__iter__") or hasattr(value, "__getitem__")
    arrays = (np.ndarray, torch.Tensor, list, tuple, Mapping, str)
    return iterable and not isinstance(value, arrays) and not hasattr(value, "__array__")


def _rows(structure: Any, name: str) -> int:
    sizes = {leaf.shape[0] for leaf in leaves(structure) if leaf is not None}
    if len(sizes) != 1:
        raise DataError(f"The arrays of {name} have different numbers of rows: {sorted(sizes)}.")
    return int(sizes.pop())


def _same_length(structure: Any, name: str, rows: int) -> None:
    for leaf in (leaf for leaf in leaves(structure) if leaf is not None):
        found = leaf.shape[0] if leaf.dim() else 0
        if found != rows:
            raise DataError(f"x has {rows} rows, {name} has {found}.")


def check_finite(tensor: torch.Tensor, name: str) -> None:
    """DataError that names the first row with NaN or Inf, if there is one."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    if all(map(torch.isfinite, torch.aminmax(tensor))):  # NaN comes through: one look at all, without memory of its own
        return
    step = max(1, _CHUNK * tensor.shape[0] // tensor.numel())
    for start in range(0, tensor.shape[0], step):
        part = tensor[start : start + step]
        good = torch.isfinite(part)
        if not bool(good.all()):
            place = (~good).nonzero()[0].tolist()
            value = part[tuple(place)].item()
            place[0] += start
            where = f"row {place[0]}" + (f", position {tuple(place[1:])}" if place[1:] else "")
            raise DataError(
                f"{name}: {where} holds {value}. Clean the data first; training on it would spoil the weights."
            )


def weights_of_classes(targets: Any, class_weight: Mapping[int, float]) -> torch.Tensor:
    """A weight for each row from its class: the argmax of one-hot rows, else the label; classes not named weigh 1."""
    if not isinstance(targets, torch.Tensor):
        raise ValueError("class_weight needs one array of targets.")
    if not all(isinstance(key, (int, np.integer)) for key in class_weight):
        raise ValueError(f"class_weight: expected a dict of class number to weight, found keys {list(class_weight)}.")
    one_hot = targets.dim() > 1 and targets.shape[-1] > 1
    if not one_hot and targets.numel() != targets.shape[0]:
        raise ValueError(f"class_weight: expected one class for each row, found y of shape {tuple(targets.shape)}.")
    labels = targets.argmax(-1) if one_hot else targets.reshape(targets.shape[0])
    labels = labels.round().long() if labels.is_floating_point() else labels.long()
    weights = torch.ones(labels.shape, dtype=widest_float(labels.device), device=labels.device)
    for label, weight in class_weight.items():
        weights[labels == int(label)] = float(weight)
    return weights
