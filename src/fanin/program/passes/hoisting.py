"""Hoisting of constants: what is the same in every run is computed once, before the first."""

from __future__ import annotations

from torch import fx

from fanin.program.effects import Mutations, aten, is_pure

_FILLS = {aten.ones_like.default: 1, aten.zeros_like.default: 0, aten.new_ones.default: 1, aten.new_zeros.default: 0}


def mark_constants(graph: fx.Graph) -> None:
    """Mark, as `meta["constant"]`, operations on nothing but constants whose result is never mutated."""
    for node in list(graph.nodes):
        if node.target in _FILLS or node.target == aten.full_like.default:
            _fill_by_shape(node)
    mutations = Mutations(graph)
    outputs = set(graph.output_node().args[0])  # type: ignore[arg-type]
    for node in graph.nodes:
        if not is_pure(node) or mutations.is_mutated(node) or node in outputs:
            continue
        if "empty" not in str(node.target) and all(source.meta.get("constant") for source in node.all_input_nodes):
            node.meta["constant"] = True


def _fill_by_shape(node: fx.Node) -> None:
    """`ones_like(x)` -> `full(shape, 1)`: it needs the shape of x, not its values."""
    value = node.meta["val"]
    if not value.is_contiguous():
        return
    fill = _FILLS[node.target] if node.target in _FILLS else node.args[1]
    node.target = aten.full.default
    node.args = (list(value.shape), fill)
    node.kwargs = {"dtype": value.dtype, "device": value.device}
