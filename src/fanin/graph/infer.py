"""Shapes and dtypes without running: a function is tried on fake tensors, which have a shape but no memory.

An unknown size is filled with two different numbers in two trials; a size of the result that differs between them is
unknown as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._subclasses.fake_tensor import FakeTensorMode
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
    """One run on fake tensors: its result, and which fake tensor stood for which symbolic one."""

    result: Any
    pairs: list[tuple[torch.Tensor, SymbolicTensor]]

    def symbol(self, fake: Any) -> SymbolicTensor | None:
        """The symbolic tensor that `fake` stood for, or None."""
        return next((symbol for tensor, symbol in self.pairs if tensor is fake), None)


def infer(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The specs of what `function` returns on symbolic arguments, in the structure that it returns.

    Leaves that are no tensors stay as they are. Errors of `function` pass through.
    """
    return infer_with_trial(function, args, kwargs)[0]


def infer_with_trial(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Trial]:
    """As `infer`, and the first trial with its fake tensors. `function` runs twice if a size is unknown."""
    first = _try(function, args, kwargs, _FILLINGS[0])
    specs = tree_map(_spec, first.result)
    if all(None not in s.shape for s in symbols_in((args, kwargs))):
        return specs, first
    second = _try(function, args, kwargs, _FILLINGS[1])
    others = iter(list(leaves(tree_map(_spec, second.result))))
    return tree_map(lambda spec: _merge(spec, next(others)), specs), first


def _try(function: Callable[..., Any], args: Any, kwargs: Any, filling: tuple[int, ...]) -> Trial:
    made: dict[SymbolicTensor, torch.Tensor] = {}

    def fake(leaf: Any) -> Any:
        if not isinstance(leaf, SymbolicTensor):
            return leaf
        if leaf not in made:
            # Unknown sizes on the same axis (the batch, say) are taken to be equal in all inputs.
            shape = [filling[axis % 6] if size is None else size for axis, size in enumerate(leaf.shape)]
            made[leaf] = torch.empty(shape, dtype=leaf.dtype)
        return made[leaf]

    with outside_transforms(), FakeTensorMode(allow_non_fake_inputs=True):
        args, kwargs = tree_map(fake, args), tree_map(fake, kwargs)
        return Trial(function(*args, **kwargs), [(tensor, symbol) for symbol, tensor in made.items()])


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Leave functorch's transforms and every dispatch mode (fake tensors, tracing) for the block.

    Weights made inside one would be dead wrappers once it ends.
    """
    with temporarily_clear_interpreter_stack(), _disable_current_modes():
        yield


def _spec(leaf: Any) -> Any:
    return Spec(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf


def _merge(one: Any, other: Any) -> Any:
    if not isinstance(one, Spec):
        return one
    if len(one.shape) != len(other.shape):
        raise ValueError(f"The rank of the result depends on an unknown size: {one.shape} or {other.shape}.")
    return Spec(tuple(a if a == b else None for a, b in zip(one.shape, other.shape, strict=True)), one.dtype)
