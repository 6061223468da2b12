"""Common subexpressions: the same operation on the same values runs once."""

from __future__ import annotations

from typing import Any

from torch import fx

from fanin.program.effects import Changes, changed, draws
from fanin.program.passes.rewrite import replace


def share_equal_results(graph: fx.Graph) -> None:
    """Let readers of a repeated operation read the first one's result.

    Left alone: what draws random numbers, what changes memory or is changed, and operations whose inputs change
    between the two.
    """
    changes = Changes(graph)
    returned = set(graph.output_node().args[0])  # type: ignore[arg-type]
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "call_function" or draws(node) or changed(node) or changes.ever(node):
            continue
        key = _key(node)
        first = seen.get(key)
        if first is None or node in returned or _changed_since(changes, first, node):
            seen[key] = node
        else:
            replace(node, first)


def _changed_since(changes: Changes, first: fx.Node, node: fx.Node) -> bool:
    return any(changes.between(source, first, node) for source in node.all_input_nodes)


def _key(node: fx.Node) -> Any:
    return node.target, _frozen(node.args), _frozen(node.kwargs)


def _frozen(value: Any) -> Any:
    """A value by which equal arguments can be found: 1, 1.0 and True stay apart."""
    if isinstance(value, dict):
        return tuple((name, _frozen(item)) for name, item in sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    return value if isinstance(value, fx.Node) else (type(value), repr(value))
