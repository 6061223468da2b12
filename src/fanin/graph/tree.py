"""Nested lists, tuples and dicts of tensors: visit or change the leaves, keep the structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def leaves(value: Any) -> Iterator[Any]:
    """The leaves of a nested structure, from left to right; a dict in its own order."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    else:
        yield value


def leaves_by_key(value: Any) -> Iterator[Any]:
    """The leaves, those of a dict in the order of its keys: Keras walks structures so."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from leaves_by_key(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves_by_key(item)
    else:
        yield value


def tree_map(function: Callable[[Any], Any], value: Any) -> Any:
    """The same structure with `function` applied to each leaf. Named tuples, torch's too, keep their type."""
    if isinstance(value, dict):
        return {key: tree_map(function, item) for key, item in value.items()}
    if isinstance(value, list):
        return [tree_map(function, item) for item in value]
    if isinstance(value, tuple):
        items = [tree_map(function, item) for item in value]
        if hasattr(value, "_fields"):
            return type(value)(*items)
        return tuple(items) if type(value) is tuple else type(value)(items)
    return function(value)


def as_list(value: Any) -> list[Any]:
    """None as [], a list or tuple as a list, anything else as a list of one."""
    if value is None:
        return []
    return [*value] if isinstance(value, (list, tuple)) else [value]


def like_inputs(items: list[Any]) -> Any:
    """One item alone, several as a list: how Keras hands out inputs and outputs."""
    return items[0] if len(items) == 1 else items
