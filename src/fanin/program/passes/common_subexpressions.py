"""Common subexpression elimination: the same operation on the same values runs once."""

from __future__ import annotations

from typing import Any

from torch import fx

from fanin.program.effects import Mutations, is_pure
from fanin.program.passes.rewrite import replace


def merge_common_subexpressions(graph: fx.Graph) -> None:
    """Replace a repeated operation by the first one's result.

    Kept: random draws, mutations, results that are mutated, and operations whose inputs are mutated between the two.
    """
    mutations = Mutations(graph)
    outputs = set(graph.output_node().args[0])  # type: ignore[arg-type]
    known: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if not is_pure(node) or mutations.is_mutated(node):
            continue
        key = _key(node)
        first = known.get(key)
        if first is None or node in outputs or _changed_since(mutations, first, node):
            known[key] = node
        else:
            replace(node, first)


def _changed_since(mutations: Mutations, first: fx.Node, node: fx.Node) -> bool:
    return any(mutations.is_mutated_between(source, first, node) for source in node.all_input_nodes)


def _key(node: fx.Node) -> Any:
    return node.target, _hashable(node.args), _hashable(node.kwargs)


def _hashable(value: Any) -> Any:
    """A hashable key of an argument, in which 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return tuple((name, _hashable(item)) for name, item in sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(item) for item in value)
    return value if isinstance(value, fx.Node) else (type(value), repr(value))
