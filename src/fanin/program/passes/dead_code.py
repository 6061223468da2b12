"""Dead code: operations whose result nobody reads."""

from __future__ import annotations

from torch import fx

from fanin.program.effects import draws_random, mutated_inputs


def drop_dead_code(graph: fx.Graph) -> None:
    """Erase operations without users, except mutations, and random draws, without which later draws would differ."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and not mutated_inputs(node) and not draws_random(node):
            graph.erase_node(node)
