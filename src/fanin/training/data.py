"""Data for training and prediction, in two forms: arrays in memory, and streams of batches.

Arrays are never fed row by row: an epoch is one permutation, a batch one index_select (or a view, without shuffling).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from fanin.graph.tree import leaves, tree_map

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


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
            reuse: whether shuffled batches of one size are the same tensors, refilled: for callers that keep none.
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
                targets = [_signed(leaf) for leaf in leaves(tuple(batch[:3])) if leaf is not None]
                sources = [_signed(leaf) for leaf in leaves((self.x, self.y, self.weight)) if leaf is not None]
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
    """Batches from a DataLoader, a Dataset or a generator. A generator goes on where the last epoch stopped, unless its
    batches are kept.

    `check` is called with each batch and its number ("batch 3") before it is yielded, but not with the batch of a
    generator that `peek` returned.
    """

    def __init__(self, source: Iterable[Any], prepare: Callable[[Any, str], Batch]):
        self._source = source
        self._prepare = prepare
        self._once = iter(source) is source
        self._waiting: list[Batch] = []
        self._first: Batch | None = None  # what `peek` returned
        self._kept: list[Batch] | None = None
        self.check: Callable[[Batch, str], None] = lambda batch, where: None
        self._running = iter(source) if self._once else None

    def peek(self) -> Batch:
        """The first batch, which `batches` still yields; the same at each call. ValueError if there is none."""
        if self._first is None:
            for item in self._running if self._running is not None else iter(self._source):
                self._first = self._prepare(item, "batch 0")
                break
            else:
                raise ValueError("The data is empty: it gave no batch.")
            if self._once:
                self._waiting.append(self._first)
        return self._first

    def keep(self) -> Stream:
        """Keep the batches of a generator from now on, so that each epoch starts with the first again."""
        if self._once:
            self._kept = []
        return self

    def batches(self) -> Iterator[Batch]:
        """One epoch."""
        if self._kept is None:
            yield from self._read()
            return
        yield from self._kept
        for batch in self._read(len(self._kept)):
            self._kept.append(batch)
            yield batch

    def _read(self, number: int = 0) -> Iterator[Batch]:
        """The batches that were not read yet; the next one has this number."""
        number += len(self._waiting)
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
    return lambda tensor: _signed(tensor).index_select(0, index).view(tensor.dtype)


def _signed(tensor: torch.Tensor) -> torch.Tensor:
    """A view of wide unsigned integers as signed ones, of which torch can select rows; else the tensor itself."""
    return tensor.view(_SIGNED.get(tensor.dtype, tensor.dtype))
