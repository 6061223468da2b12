"""The masks of a graph as Keras's archives have them: operations, whose results are handed to the layers that take one.

Keras makes masks again when it reads an archive, under new names, and refuses two operations of one name: a layer
"concatenate" and the operation that puts masks together. Masks that the archive hands over are not made again.
"""

from __future__ import annotations

from typing import Any

from fanin.graph.keras import as_operation
from fanin.graph.node import FunctionCall, Node, ancestors
from fanin.graph.symbolic import SymbolicTensor, symbols_in
from fanin.graph.tree import like_inputs
from fanin.layers.base.layer import Layer
from fanin.layers.batch_normalization import BatchNormalization
from fanin.layers.softmax import Softmax
from fanin.models.network import Network


def with_masks(network: Network) -> tuple[list[Any], dict[int, dict[str, Any]]]:
    """The operations of a graph with those that make masks, and for each call, by its id, its keyword arguments.

    A mask stays out if a part of it is no operation of Keras: then reading makes it again.
    """
    inside = {id(node) for node in network.nodes}
    operations: dict[int, Any] = {}
    kwargs = {id(node): node.kwargs for node in network.nodes}
    for operation in network.operations:
        for node in operation.inbound_nodes:
            masks = _masks(node) if id(node) in inside else []
            makers = [made for made in ancestors(symbols_in(masks)) if id(made) not in inside]
            if makers and all(map(_is_keras, makers)):
                operations.update((id(made.layer), made.layer) for made in makers)
                kwargs.update((id(made), made.kwargs) for made in makers)
                kwargs[id(node)] = {**node.kwargs, "mask": like_inputs(masks)}
        operations[id(operation)] = operation
    return list(operations.values()), kwargs


def _masks(node: Node) -> list[SymbolicTensor | None]:
    """The masks of the inputs of a call, where Keras's layer takes them."""
    layer = node.layer
    takes = isinstance(layer, (BatchNormalization, Softmax)) or (isinstance(layer, Layer) and layer._saved_layers())
    return [symbol.mask for symbol in node.input_tensors] if takes and node.kwargs.get("mask") is None else []


def _is_keras(node: Node) -> bool:
    return isinstance(node.layer, FunctionCall) and as_operation(node, (0,)) is not None
