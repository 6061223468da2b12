"""Redundant copies: `clone` and casts to the same dtype, where neither the original nor the copy is mutated later."""

from __future__ import annotations

from torch import fx

from fanin.program.effects import Mutations, aten, storages_of
from fanin.program.passes.rewrite import replace, same_layout

_COPIES = (aten.clone.default, aten._to_copy.default, aten.lift_fresh_copy.default)


def drop_copies(graph: fx.Graph) -> None:
    """Replace such copies by their original."""
    mutations = Mutations(graph)
    outputs = {node for node in graph.output_node().args[0] if node is not None}  # type: ignore[union-attr]
    for node in list(graph.nodes):
        if node.target not in _COPIES or node in outputs:
            continue
        source = node.args[0]
        if (
            same_layout(source, node)
            and not mutations.is_mutated(node)
            and not _is_mutated_while_read(mutations, source, node)
        ):
            replace(node, source)


def _is_mutated_while_read(mutations: Mutations, source: fx.Node, copy: fx.Node) -> bool:
    """Whether the original is mutated before the last reader of the copy, or of a view of it."""
    readers = _readers(copy)
    return any(mutations.is_mutated_between(source, copy, reader) for reader in readers)


def _readers(node: fx.Node) -> list[fx.Node]:
    """All readers of a node, directly or through views."""
    found: list[fx.Node] = []
    for user in node.users:
        found.append(user)
        if _share_storage(user, node):
            found += _readers(user)
    return found


def _share_storage(user: fx.Node, node: fx.Node) -> bool:
    return bool(set(storages_of(user)) & set(storages_of(node)))
