"""The effects of an operation besides its result: which memory it shares and mutates, and whether it is random."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
Storage = Hashable  # identifies a piece of memory, which several values may share


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in a value: itself, or those in a tuple or list."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)


def storages_of(node: fx.Node) -> list[Storage]:
    """The storages of the tensors in a node's value: those of the input that it views or mutates, else new ones."""
    first = node.args[0] if node.args else None
    if is_getitem(node) and isinstance(first, fx.Node):
        return storages_of(first) if is_view(first) else [(first, node.args[1])]
    if is_view(node) and isinstance(first, fx.Node):
        return storages_of(first)
    if node.op != "call_function":
        return [value.untyped_storage()._cdata for value in tensors_of(node.meta.get("val"))]
    if (target := returned_input(node)) is not None:
        return storages_of(target)
    value = node.meta.get("val")
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [(node, position) for position, part in enumerate(parts) if isinstance(part, Tensor)]


def mutated_inputs(node: fx.Node) -> list[fx.Node]:
    """The inputs that an operation mutates: by its schema, and the averages of batch normalization, which has none."""
    schema = getattr(node.target, "_schema", None)
    if node.target == aten.native_batch_norm.default and node.args[5]:  # in training, the moving averages
        return [one for one in node.args[3:5] if isinstance(one, fx.Node)]
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return []
    found: list[fx.Node] = []
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
        found += [
            item for item in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(item, fx.Node)
        ]
    return found


def returned_input(node: fx.Node) -> fx.Node | None:
    """The input that an in-place operation returns as its result; None where the result is a new tensor."""
    schema = getattr(node.target, "_schema", None)
    first = schema.returns[0].alias_info if schema is not None and schema.returns else None
    if node.op != "call_function" or first is None or not first.is_write:
        return None
    return mutated_inputs(node)[0]


def draws_random(node: fx.Node) -> bool:
    """Whether an operation draws random numbers: it may be neither dropped, repeated nor reordered."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags


def is_pure(node: fx.Node) -> bool:
    """Whether a node is an operation that neither mutates an input nor draws random numbers."""
    return node.op == "call_function" and not mutated_inputs(node) and not draws_random(node)


def is_view(node: fx.Node) -> bool:
    """Whether a node's result is a view of its first input, by its schema."""
    if node.op != "call_function":
        return False
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # an item of a view with several results, such as a split
        return is_getitem(node) and isinstance(node.args[0], fx.Node) and is_view(node.args[0])
    is_alias = any(one.alias_info is not None and not one.alias_info.is_write for one in schema.returns)
    return is_alias or node.target == aten._unsafe_view.default


def is_getitem(node: fx.Node) -> bool:
    """Whether a node picks one of an operation's several results."""
    return node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"


class Mutations:
    """The positions in a graph at which each storage is mutated."""

    def __init__(self, graph: fx.Graph):
        self.position = {node: position for position, node in enumerate(graph.nodes)}
        self._mutated_at: dict[Storage, list[int]] = {}
        for node, position in self.position.items():
            for target in mutated_inputs(node):
                for storage in storages_of(target):
                    self._mutated_at.setdefault(storage, []).append(position)

    def is_mutated(self, node: fx.Node) -> bool:
        """Whether any operation mutates the storage of a node."""
        return any(storage in self._mutated_at for storage in storages_of(node))

    def is_mutated_between(self, node: fx.Node, first: fx.Node, last: fx.Node) -> bool:
        """Whether the storage of a node is mutated after `first`, up to and including `last`."""
        start, end = self.position[first], self.position[last]
        return any(start < at <= end for storage in storages_of(node) for at in self._mutated_at.get(storage, ()))
