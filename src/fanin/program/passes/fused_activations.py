"""Fused activations: relu becomes part of the product before it, where nobody else reads the product."""

from __future__ import annotations

from torch import fx

from fanin.program.effects import Mutations, aten, storages_of
from fanin.program.matmul import ADDMM_RELU
from fanin.program.passes.rewrite import same_layout


def fuse_activations(graph: fx.Graph) -> None:
    """relu(addmm(b, x, w)) -> _addmm_activation(b, x, w): one operation, one buffer."""
    if ADDMM_RELU is None:
        return
    mutations = Mutations(graph)
    for node in list(graph.nodes):
        if node.target != aten.relu.default:
            continue
        product = node.args[0]
        single = len(product.users) == 1 and not mutations.is_mutated(product) and len(storages_of(product)) == 1
        if product.target != aten.addmm.default or not single or not same_layout(product, node):
            continue
        if product.meta["val"].device.type != "cpu":
            continue
        with graph.inserting_before(product):
            fused = graph.call_function(ADDMM_RELU, product.args, dict(product.kwargs))
        fused.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(fused)
        graph.erase_node(node)
        graph.erase_node(product)
