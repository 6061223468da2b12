"""Dead code: operations whose result nobody reads."""

from __future__ import annotations

from torch import fx

from fanin.program.effects import is_pure


def drop_dead_code(graph: fx.Graph) -> None:
    """Erase operations without users, except mutations, and random draws, without which later draws would differ."""
    for node in reversed(list(graph.nodes)):
        if is_pure(node) and not node.users:
            graph.erase_node(node)
