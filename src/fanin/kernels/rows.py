"""Which adapter acts in which row of a batch, for the calls of one block: what `fanin.adapters.rows` opens."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch of B rows, sorted by adapter once for all layers in which the same of them have one: N rows, of G
    different adapters.

    Attributes:
        owner: the module whose calls are meant.
        paths: these layers, and where each is in the owner.
        count: B.
        groups: the names of the adapters that occur, sorted.
        order: (N,), int64: the rows that have an adapter, those of one adapter together, in the order of `groups`.
        group: (N,), int64: for each of them the place of its adapter in `groups`.
        offsets: (G,), int32: where each adapter's rows end in `order`.
        let_train: to be called before the block's adapters are trained.
    """

    owner: weakref.ReferenceType[Any]
    paths: Mapping[Any, str]
    count: int
    groups: tuple[str, ...]
    order: Tensor
    group: Tensor
    offsets: Tensor
    let_train: Callable[[], None]

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What differs between batches of the same `rows_key`."""
        return self.order, self.group, self.offsets

    def on(self, device: torch.device) -> Rows:
        """The same with its tensors on this device."""
        if self.order.device == device:
            return self
        order, group, offsets = (each.to(device) for each in self.tensors)
        return replace(self, order=order, group=group, offsets=offsets)

    def check(self, layer: Any, inputs: Tensor, rank: int) -> None:
        """ValueError, naming the layer, for inputs that are not of B rows, or of too low a rank to have rows."""
        where = self.paths.get(layer) or type(layer).__name__
        if inputs.is_nested or inputs.ndim < rank:
            found = "a nested tensor" if inputs.is_nested else f"shape {tuple(inputs.shape)}"
            raise ValueError(f"{where}: a name for each row needs inputs (B, ...), found {found}.")
        if inputs.shape[0] != self.count:
            raise ValueError(
                f"{where}: found inputs of shape {tuple(inputs.shape)}, but {self.count} names of adapters, one for "
                "each row of the batch (the first axis)."
            )


def sorted_rows(
    owner: Any,
    paths: Mapping[Any, str],
    names: Sequence[str | None],
    device: torch.device,
    let_train: Callable[[], None],
) -> Rows:
    """The rows for these layers of `owner`, with these adapters; None for the base alone."""
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name is not None:
            members.setdefault(name, []).append(row)
    groups = tuple(sorted(members))  # batches with the same adapters have the same key
    order = [row for name in groups for row in members[name]]
    group = [place for place, name in enumerate(groups) for _ in members[name]]
    ends = [*accumulate(len(members[name]) for name in groups)]
    with torch.inference_mode(False):  # gradients keep them
        return Rows(
            weakref.ref(owner),
            paths,
            len(names),
            groups,
            torch.tensor(order, dtype=torch.int64, device=device),
            torch.tensor(group, dtype=torch.int64, device=device),
            torch.tensor(ends, dtype=torch.int32, device=device),
            let_train,
        )


# --- the blocks that are open -----------------------------------------------------------------------------------------


class Blocks:
    """How many blocks are open in all threads: outside of all, a call has only this number to look at. It is a plain
    one, so that torch.compile guards on it; a context variable it does not see."""

    count = 0
    lock = threading.Lock()


_open: ContextVar[tuple[Rows, ...]] = ContextVar("rows", default=())


@contextmanager
def opened(parts: Iterable[Rows]) -> Iterator[None]:
    """Inside the block, each of `parts` holds for its layers, in this thread or task; of nested blocks the innermost
    does."""
    with _standing((*_open.get(), *parts)):
        yield


@contextmanager
def _standing(blocks: tuple[Rows, ...]) -> Iterator[None]:
    token = _open.set(blocks)
    with Blocks.lock:
        Blocks.count += 1
    try:
        yield
    finally:
        with Blocks.lock:
            Blocks.count -= 1
        _open.reset(token)


def layer_of(tensors: Any) -> Any:
    """The layer that keeps the slots of a scheme, where `tensors` may be a view of it in another dtype."""
    return getattr(tensors, "holder", tensors)


def rows_of(tensors: Any) -> Rows | None:
    """The rows that hold for calls of a layer, or None; where gradients are on, their adapters train from now on.

    To be asked for only where `Blocks.count` is not 0.
    """
    layer = layer_of(tensors)
    rows = next((rows for rows in reversed(_open.get()) if layer in rows.paths), None)
    if rows is not None and torch.is_grad_enabled():
        rows.let_train()
    return rows


# What torch.compiler.disable sets; that would import the compiler with `import fanin`, which takes longer than torch.
rows_of._torchdynamo_disable = True  # type: ignore[attr-defined]


# --- for programs that are traced inside a block ----------------------------------------------------------------------


def rows_key() -> Hashable:
    """What a program that is traced now takes for given, beside the values of `rows_tensors`; None outside of all
    blocks. A program serves the calls of equal keys only."""
    if not Blocks.count:
        return None
    return tuple((r.owner, *r.paths.values(), r.count, r.groups, len(r.order)) for r in _open.get()) or None


def rows_tensors() -> list[Tensor]:
    """The tensors of the open blocks: inputs of a program that is traced inside them, beside the batch."""
    return [tensor for rows in _open.get() for tensor in rows.tensors] if Blocks.count else []


@contextmanager
def with_rows_tensors(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block, other tensors stand for `rows_tensors`, in their order: those that a tracer gives."""
    given = iter(tensors)
    blocks = _open.get()
    with _standing(tuple(replace(r, order=next(given), group=next(given), offsets=next(given)) for r in blocks)):
        yield
