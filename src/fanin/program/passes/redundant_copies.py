"""Copies that nobody needs: `clone` and casts to the dtype that is there, where neither side changes afterwards."""

from __future__ import annotations

from torch import fx

from fanin.program.effects import Changes, aten, memories
from fanin.program.passes.rewrite import replace, same_layout

_COPIES = (aten.clone.default, aten._to_copy.default, aten.lift_fresh_copy.default)


def drop_copies(graph: fx.Graph) -> None:
    """Let the readers of such a copy read the original."""
    changes = Changes(graph)
    returned = {node for node in graph.output_node().args[0] if node is not None}  # type: ignore[union-attr]
    for node in list(graph.nodes):
        if node.target not in _COPIES or node in returned:
            continue
        source = node.args[0]
        if same_layout(source, node) and not changes.ever(node) and not _changes_while_read(changes, source, node):
            replace(node, source)


def _changes_while_read(changes: Changes, source: fx.Node, copy: fx.Node) -> bool:
    """Whether the original changes before the last reader of the copy, or of a view of it, has read it."""
    readers = _readers(copy)
    return any(changes.between(source, copy, reader) for reader in readers)


def _readers(node: fx.Node) -> list[fx.Node]:
    """Whatever reads the memory of a node, directly or through views."""
    found: list[fx.Node] = []
    for user in node.users:
        found.append(user)
        if _shares(user, node):
            found += _readers(user)
    return found


def _shares(user: fx.Node, node: fx.Node) -> bool:
    return bool(set(memories(user)) & set(memories(node)))
