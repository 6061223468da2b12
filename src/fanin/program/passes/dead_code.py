"""Nothing is computed that nobody reads."""

from __future__ import annotations

from torch import fx

from fanin.program.effects import changed, draws


def drop_unread(graph: fx.Graph) -> None:
    """Drop operations without a reader; not changes of memory, nor random draws: later ones would differ."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and not changed(node) and not draws(node):
            graph.erase_node(node)
