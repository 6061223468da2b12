"""Shapes and dtypes without running: a function is tried on fake tensors, which have a shape but no memory.

An unknown size is filled with two different numbers in two trials; a size of the result that differs between them is
unknown as well. A function that decides by values is tried on real zeros and ones instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import _disable_current_modes

from fanin.graph.symbolic import Shape, SymbolicTensor, symbols_in
from fanin.graph.tree import leaves, tree_map

# Multiples of 60, so that a reshape by a small number works in a trial as it will on data.
_FILLINGS = ((60, 120, 180, 240, 300, 360), (120, 300, 420, 480, 540, 660))


@dataclass(frozen=True)
class Spec:
    """The shape (None where unknown) and dtype of one tensor."""

    shape: Shape
    dtype: torch.dtype


@dataclass
class Trial:
    """One run: its result, and which tensor stood for which symbolic one."""

    result: Any
    pairs: list[tuple[torch.Tensor, SymbolicTensor]]
    on_values: bool = False  # real tensors, not fake ones

    def symbol(self, tensor: Any) -> SymbolicTensor | None:
        """The symbolic tensor that `tensor` stood for, or None."""
        return next((symbol for given, symbol in self.pairs if given is tensor), None)


def infer(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The specs of what `function` returns on symbolic arguments, in the structure that it returns.

    Leaves that are no tensors stay as they are. Errors of `function` pass through.
    """
    return infer_with_trial(function, args, kwargs)[0]


def infer_with_trial(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Trial]:
    """As `infer`, and the first trial with its fake tensors. `function` runs twice if a size is unknown."""
    first = _try(function, args, kwargs, _FILLINGS[0])
    if all(None not in s.shape for s in symbols_in((args, kwargs))):
        return tree_map(_spec, first.result), first
    return _merged(first, _try(function, args, kwargs, _FILLINGS[1]), "an unknown size"), first


def infer_on_values(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Trial]:
    """As `infer_with_trial`, on real tensors: of zeros first, then of ones. What differs is unknown."""
    with torch.no_grad():
        first = _try(function, args, kwargs, _FILLINGS[0], value=0)
        second = _try(function, args, kwargs, _FILLINGS[1], value=1)
    return _merged(first, second, "the values or an unknown size"), first


def needs_values(error: Exception) -> bool:
    """Whether a trial failed because fake tensors have no values."""
    kinds = DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException
    hints = ".numpy() is not", "FakeTensor.", "for __torch__."  # the last of quantized weights, objects of C++
    return isinstance(error, kinds) or any(text in str(error) for text in hints)


def _try(
    function: Callable[..., Any], args: Any, kwargs: Any, filling: tuple[int, ...], value: int | None = None
) -> Trial:
    """One run, on fake tensors, or on real ones full of a value."""
    made: dict[SymbolicTensor, torch.Tensor] = {}

    def stand_in(leaf: Any) -> Any:
        if not isinstance(leaf, SymbolicTensor):
            return leaf
        if leaf not in made:
            # Unknown sizes on the same axis (the batch, say) are taken to be equal in all inputs.
            shape = [filling[axis % 6] if size is None else size for axis, size in enumerate(leaf.shape)]
            made[leaf] = torch.full(shape, value or 0, dtype=leaf.dtype)
        return made[leaf]

    with outside_transforms(), FakeTensorMode(allow_non_fake_inputs=True) if value is None else nullcontext():
        args, kwargs = tree_map(stand_in, args), tree_map(stand_in, kwargs)
        pairs = [(tensor, symbol) for symbol, tensor in made.items()]
        return Trial(function(*args, **kwargs), pairs, value is not None)


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Leave functorch's transforms and every dispatch mode (fake tensors, tracing) for the block.

    Weights made inside one would be dead wrappers once it ends.
    """
    with temporarily_clear_interpreter_stack(), _disable_current_modes():
        yield


def _spec(leaf: Any) -> Any:
    return Spec(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf


def _merged(first: Trial, second: Trial, depends_on: str) -> Any:
    """The specs of two trials, sizes None where they differ. ValueError for results that differ in more."""
    others = list(leaves(tree_map(_spec, second.result)))
    if len(list(leaves(first.result))) != len(others):
        raise ValueError(f"The number of results depends on {depends_on}.")
    rest = iter(others)

    def merge(one: Any) -> Any:
        other = next(rest)
        if not isinstance(one, Spec):
            return one
        if not isinstance(other, Spec) or len(one.shape) != len(other.shape):
            found = other.shape if isinstance(other, Spec) else other
            raise ValueError(f"The rank of the result depends on {depends_on}: {one.shape} or {found}.")
        return Spec(tuple(a if a == b else None for a, b in zip(one.shape, other.shape, strict=True)), one.dtype)

    return tree_map(lambda leaf: merge(_spec(leaf)), first.result)
