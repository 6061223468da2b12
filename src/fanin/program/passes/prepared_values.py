"""For programs whose static tensors stay as they are: what depends on nothing else is computed before many runs."""

from __future__ import annotations

from torch import Tensor

from fanin.program.effects import Changes, changed, draws, is_view
from fanin.program.trace import Traced


def mark_prepared(traced: Traced) -> None:
    """Mark, as `meta["prepared"]`, what is computed from static tensors alone: casts of weights, folded factors."""
    changes = Changes(traced.graph)
    returned = set(traced.outputs)
    lasting = {node for node in traced.static if not changes.ever(node)}
    for node in traced.graph.nodes:
        if node.op != "call_function" or changed(node) or draws(node) or changes.ever(node) or node in returned:
            continue
        if node.meta.get("constant"):
            lasting.add(node)
        elif isinstance(node.meta.get("val"), Tensor) and set(node.all_input_nodes) <= lasting:
            lasting.add(node)
            node.meta["prepared"] = not is_view(node)
