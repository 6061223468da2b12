"""What a layer remembers of its symbolic calls: inputs, outputs, masks and shapes of each, and the graph they form."""

from __future__ import annotations

import weakref
from typing import Any

from torch import fx, nn

from fanin.errors import EagerLayerError, NotYetError
from fanin.graph.lower import nodes_reaching, to_fx
from fanin.graph.node import Node, alive
from fanin.graph.symbolic import SymbolicTensor
from fanin.graph.tree import leaves, like_inputs


class History(nn.Module):
    """The part of a layer that answers questions about its calls on symbolic tensors.

    A layer that was never called, or only on real tensors, has no such calls: it says so, and what to do.
    """

    name: str
    inbound_nodes: list[Node]
    _outbound: list[weakref.ref[Node]]
    _met_tensors: bool

    @property
    def outbound_nodes(self) -> list[Node]:
        """The calls, still alive, that took an output of this layer as input."""
        return alive(self._outbound)

    # --- the single call -------------------------------------------------------------------------------------

    @property
    def input(self) -> Any:
        """The symbolic input (a list of several). AttributeError unless the layer has exactly one symbolic call."""
        return self._only("input").inputs

    @property
    def output(self) -> Any:
        """The symbolic output (a list of several). AttributeError unless the layer has exactly one symbolic call."""
        return _returned(self._only("output"))

    @property
    def input_mask(self) -> Any:
        """The mask of the input, or None. AttributeError unless the layer has exactly one symbolic call."""
        return _input_masks(self._only("input_mask"))

    @property
    def output_mask(self) -> Any:
        """The mask of the output, or None. AttributeError unless the layer has exactly one symbolic call."""
        return _output_masks(self._only("output_mask"))

    @property
    def input_shape(self) -> Any:
        """The shape of the input, also of several calls when all agree; else AttributeError."""
        return self._agreed("input_shape", _input_shapes)

    @property
    def output_shape(self) -> Any:
        """The shape of the output, also of several calls when all agree; else AttributeError."""
        return self._agreed("output_shape", _output_shapes)

    @property
    def graph(self) -> fx.Graph:
        """The symbolic calls that reach this layer, from the inputs on, as a `torch.fx.Graph`."""
        if not self.inbound_nodes:
            raise self._no_nodes("graph", NotYetError)
        return to_fx(nodes_reaching(self.inbound_nodes))

    # --- one of several calls --------------------------------------------------------------------------------

    def get_input_at(self, node_index: int) -> Any:
        """The input (a list of several) of call `node_index`, 0 for the first.

        ValueError if there is no such call; RuntimeError if the layer was never called on symbolic tensors.
        """
        return self._node(node_index, "get_input_at").inputs

    def get_output_at(self, node_index: int) -> Any:
        """The output (a list of several) of call `node_index`."""
        return _returned(self._node(node_index, "get_output_at"))

    def get_input_mask_at(self, node_index: int) -> Any:
        """The mask, or None, of the input of call `node_index`; a list for several inputs."""
        return _input_masks(self._node(node_index, "get_input_mask_at"))

    def get_output_mask_at(self, node_index: int) -> Any:
        """The mask, or None, of the output of call `node_index`; a list for several outputs."""
        return _output_masks(self._node(node_index, "get_output_mask_at"))

    def get_input_shape_at(self, node_index: int) -> Any:
        """The shape of the input of call `node_index`; a list for several inputs."""
        return _input_shapes(self._node(node_index, "get_input_shape_at"))

    def get_output_shape_at(self, node_index: int) -> Any:
        """The shape of the output of call `node_index`; a list for several outputs."""
        return _output_shapes(self._node(node_index, "get_output_shape_at"))

    # --- finding the call ------------------------------------------------------------------------------------

    def _only(self, asked: str) -> Node:
        if not self.inbound_nodes:
            raise self._no_nodes(asked, AttributeError)
        if len(self.inbound_nodes) > 1:
            raise AttributeError(
                f"Layer {self.name!r} has {len(self.inbound_nodes)} symbolic calls, so {asked!r} is ambiguous. "
                f"Ask one of them: layer.get_{asked}_at(index)."
            )
        return self.inbound_nodes[0]

    def _agreed(self, asked: str, shapes_of: Any) -> Any:
        if not self.inbound_nodes:
            raise self._no_nodes(asked, AttributeError)
        shapes = [shapes_of(node) for node in self.inbound_nodes]
        if any(shape != shapes[0] for shape in shapes):
            raise AttributeError(
                f"The {len(shapes)} symbolic calls of layer {self.name!r} have different shapes, so {asked!r} is "
                f"ambiguous. Ask one of them: layer.get_{asked}_at(index)."
            )
        return shapes[0]

    def _node(self, index: int, asked: str) -> Node:
        if not self.inbound_nodes:
            raise self._no_nodes(asked, RuntimeError)
        count = len(self.inbound_nodes)
        if not -count <= index < count:
            raise ValueError(f"Layer {self.name!r} has no symbolic call {index}: it has {count}, counted from 0.")
        return self.inbound_nodes[index]

    def _no_nodes(self, asked: str, never_called: type[Exception]) -> Exception:
        if self._met_tensors:
            return EagerLayerError(
                f"Layer {self.name!r} was only called on real tensors, which keep no graph, so it has no {asked!r}. "
                "Call it on fanin.Input(shape), or put it into a fanin.Sequential."
            )
        return never_called(
            f"Layer {self.name!r} was never called, so it has no {asked!r}. Call it on fanin.Input(shape), or put it "
            "into a fanin.Sequential with a known input shape."
        )


def _symbols(node: Node) -> list[SymbolicTensor]:
    return [leaf for leaf in leaves(node.outputs) if isinstance(leaf, SymbolicTensor)]


def _returned(node: Node) -> Any:
    return like_inputs(_symbols(node))


def _input_masks(node: Node) -> Any:
    return like_inputs([symbol.mask for symbol in node.sources])


def _output_masks(node: Node) -> Any:
    return like_inputs([symbol.mask for symbol in _symbols(node)])


def _input_shapes(node: Node) -> Any:
    return like_inputs([symbol.shape for symbol in node.sources])


def _output_shapes(node: Node) -> Any:
    return like_inputs([symbol.shape for symbol in _symbols(node)])
