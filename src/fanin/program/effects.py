"""What an operation does beside computing its result: which memory it reads and changes, and whether it draws."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
Memory = Hashable  # stands for one piece of memory, which several values may share


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors of a fake value: one, or those of a tuple."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)


def memories(node: fx.Node) -> list[Memory]:
    """The pieces of memory that hold a node's value: those of what it views or changes, else its own."""
    first = node.args[0] if node.args else None
    if is_getitem(node) and isinstance(first, fx.Node):
        return memories(first) if is_view(first) else [(first, node.args[1])]
    if is_view(node) and isinstance(first, fx.Node):
        return memories(first)
    if node.op != "call_function":
        return [value.untyped_storage()._cdata for value in tensors_of(node.meta.get("val"))]
    if (target := given_back(node)) is not None:
        return memories(target)
    value = node.meta.get("val")
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [(node, place) for place, part in enumerate(parts) if isinstance(part, Tensor)]


def changed(node: fx.Node) -> list[fx.Node]:
    """The inputs that an operation changes in place, as its schema says, or as is known of it."""
    schema = getattr(node.target, "_schema", None)
    if node.target == aten.native_batch_norm.default and node.args[5]:  # in training, the moving averages
        return [one for one in node.args[3:5] if isinstance(one, fx.Node)]
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return []
    found: list[fx.Node] = []
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
        found += [
            item for item in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(item, fx.Node)
        ]
    return found


def given_back(node: fx.Node) -> fx.Node | None:
    """The input that an operation changes in place and gives back as its result; None where the result is new."""
    schema = getattr(node.target, "_schema", None)
    first = schema.returns[0].alias_info if schema is not None and schema.returns else None
    if node.op != "call_function" or first is None or not first.is_write:
        return None
    return changed(node)[0]


def draws(node: fx.Node) -> bool:
    """Whether an operation takes random numbers, so that it must run once, and in its place."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags


def is_view(node: fx.Node) -> bool:
    """Whether a node only looks at memory that is there, as its schema says."""
    if node.op != "call_function":
        return False
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # one part of what a view with several results gave, such as a split
        return is_getitem(node) and isinstance(node.args[0], fx.Node) and is_view(node.args[0])
    looks = any(one.alias_info is not None and not one.alias_info.is_write for one in schema.returns)
    return looks or node.target == aten._unsafe_view.default


def is_getitem(node: fx.Node) -> bool:
    """Whether a node takes one part of an operation's several results."""
    return node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"


class Changes:
    """When each piece of memory is changed, by positions in a graph."""

    def __init__(self, graph: fx.Graph):
        self.place = {node: place for place, node in enumerate(graph.nodes)}
        self.times: dict[Memory, list[int]] = {}
        for node, place in self.place.items():
            for target in changed(node):
                for memory in memories(target):
                    self.times.setdefault(memory, []).append(place)

    def ever(self, node: fx.Node) -> bool:
        """Whether anything changes the memory of a node."""
        return any(memory in self.times for memory in memories(node))

    def between(self, node: fx.Node, first: fx.Node, last: fx.Node) -> bool:
        """Whether the memory of a node changes after `first` has run and before `last` has, or by `last` itself."""
        start, end = self.place[first], self.place[last]
        return any(start < time <= end for memory in memories(node) for time in self.times.get(memory, ()))
