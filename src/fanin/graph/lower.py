"""From nodes to a `torch.fx.Graph`, for display and for tools that work on fx graphs."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from fanin.graph.node import FunctionCall, Node, ancestors
from fanin.graph.symbolic import SymbolicTensor
from fanin.graph.tree import leaves, tree_map


class Constant:
    """A tensor that the graph captured, as a function: fx writes no tensors into the code of a graph."""

    __name__ = "constant"

    def __init__(self, value: torch.Tensor):
        self.value = value

    def __call__(self) -> torch.Tensor:
        """The tensor."""
        return self.value


def to_fx(symbols: Iterable[SymbolicTensor]) -> fx.Graph:
    """The graph that computes `symbols` from its inputs.

    Inputs are placeholders, layers are `call_module` with the layer's name as target, torch functions are
    `call_function`; a shared layer appears once for each call. Each fx node carries the shape and dtype that were
    inferred in `meta["shape"]` and `meta["dtype"]`.
    """
    symbols = list(symbols)
    graph = fx.Graph()
    calls: dict[int, fx.Node] = {}
    values: dict[tuple[int, int], fx.Node] = {}

    def value(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return graph.call_function(Constant(leaf))
        if not isinstance(leaf, SymbolicTensor):
            return leaf
        key = id(leaf.node), leaf.index
        if key not in values:
            made = calls[id(leaf.node)]
            alone = leaf.node.returned == 1 and isinstance(leaf.node.outputs, SymbolicTensor)
            found = made if alone and leaf.index == 0 else graph.call_function(operator.getitem, (made, leaf.index))
            found.meta["shape"], found.meta["dtype"] = leaf.shape, leaf.dtype
            values[key] = found
        return values[key]

    for node in ancestors(symbols):
        calls[id(node)] = _emit(graph, node, tree_map(value, node.args), tree_map(value, node.kwargs))
    results = [value(symbol) for symbol in symbols]
    graph.output(results[0] if len(results) == 1 else tuple(results))
    return graph


def _emit(graph: fx.Graph, node: Node, args: Any, kwargs: Any) -> fx.Node:
    layer = node.layer
    if not node.input_tensors:
        return graph.placeholder(layer.name)
    if isinstance(layer, FunctionCall):
        return graph.call_function(layer.function, args, kwargs)
    return graph.create_node("call_module", layer.name, args, kwargs, name=layer.name)


def nodes_reaching(nodes: Iterable[Node]) -> list[SymbolicTensor]:
    """The returned outputs of `nodes`, whose ancestors are all calls that reach them."""
    return [leaf for node in nodes for leaf in leaves(node.outputs) if isinstance(leaf, SymbolicTensor)]
