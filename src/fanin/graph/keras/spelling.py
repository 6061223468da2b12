"""Calls of torch functions as operations of Keras, also where their arguments are not those of a row of the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from fanin.graph.functions import SPACES
from fanin.graph.keras.operation import Described, bound, operations, spelled
from fanin.graph.node import Node
from fanin.graph.symbolic import SymbolicTensor


@dataclass(frozen=True)
class Call:
    """A recorded call.

    Attributes:
        args, kwargs: the arguments, without those that say nothing.
        results: the symbolic tensors that it returns.
        used: the indices of the results that the graph goes on with.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: list[SymbolicTensor]
    used: Collection[int]

    @property
    def tensor(self) -> Any:
        """The first argument."""
        return self.args[0] if self.args else self.kwargs.get("input", self.kwargs.get("x"))

    def bound(self, *names: str) -> dict[str, Any] | None:
        """The arguments by name; None if there are others."""
        return bound(names, self.args, self.kwargs)

    def rest(self, name: str) -> list[Any] | None:
        """Several numbers, as `x.reshape(2, 3)` and `torch.reshape(x, (2, 3))` take them; None if there is more."""
        given = self.args[1:] or tuple(self.kwargs.values())
        if (len(self.args) > 1 and self.kwargs) or any(key != name for key in self.kwargs):
            return None
        numbers = given[0] if len(given) == 1 and isinstance(given[0], (list, tuple)) else given
        return [*numbers] if all(type(number) is int for number in numbers) else None


def as_operation(node: Node, used: Collection[int]) -> Described | None:
    """The recorded call as an operation of Keras; None if none does exactly the same.

    Args:
        node: the call of a torch function.
        used: the indices of its results that the graph goes on with.
    """
    function = node.layer.function
    kwargs = {key: value for key, value in node.kwargs.items() if key != "_stacklevel" and value is not None}
    if kwargs.get("inplace") is False:
        del kwargs["inplace"]
    call = Call(node.args, kwargs, node.output_tensors, used)
    if function in SPELLINGS:
        return SPELLINGS[function](call)
    return spelled[function].spelled(call.args, kwargs) if function in spelled else None


Spelling = Callable[[Call], Described | None]
SPELLINGS: dict[Any, Spelling] = {}
"""What makes an operation of a call, by function."""


def spells(*names: str) -> Callable[[Spelling], Spelling]:
    """Enter a spelling for the functions and methods of these names; "torch.x" is a function alone."""

    def enter(spelling: Spelling) -> Spelling:
        for name in names:
            space, _, last = name.rpartition(".")
            places = [SPACES[space]] if space else [torch, torch.Tensor, functional]
            SPELLINGS.update((getattr(place, last), spelling) for place in places if hasattr(place, last))
        return spelling

    return enter


def described(name: str, *args: Any, **config: Any) -> Described | None:
    """A call of the operation of that name; None if a file cannot hold one of the options."""
    return operations[name].described(*args, **config)


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor, with or without values."""
    return isinstance(value, (SymbolicTensor, torch.Tensor))


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)
