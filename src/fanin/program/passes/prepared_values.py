"""For programs whose static tensors do not change: what depends on nothing else is computed once for many runs."""

from __future__ import annotations

from torch import Tensor

from fanin.program.effects import Mutations, is_pure, is_view
from fanin.program.trace import Traced


def mark_prepared(traced: Traced) -> None:
    """Mark, as `meta["prepared"]`, what is computed from static tensors alone: casts of weights, folded factors."""
    mutations = Mutations(traced.graph)
    outputs = set(traced.outputs)
    known = {node for node in traced.static if not mutations.is_mutated(node)}
    for node in traced.graph.nodes:
        if not is_pure(node) or mutations.is_mutated(node) or node in outputs:
            continue
        if node.meta.get("constant"):
            known.add(node)
        elif isinstance(node.meta.get("val"), Tensor) and set(node.all_input_nodes) <= known:
            known.add(node)
            node.meta["prepared"] = not is_view(node)
