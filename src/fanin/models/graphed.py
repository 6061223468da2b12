"""What a model can say through the graph between its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from fanin.graph.node import FunctionCall, Node
from fanin.graph.symbolic import SymbolicTensor
from fanin.graph.tree import like_inputs, tree_map
from fanin.layers.base.layer import Layer
from fanin.layers.input_layer import InputLayer
from fanin.models.execution import Execution
from fanin.models.network import Network


class Graphed(Execution):
    """The part of a model that knows its layers, its inputs and its outputs, and is copied with them."""

    def _connect(self, network: Network) -> None:
        """Take over the layers of a graph. `state_dict` keys are positions, input layers not counted."""
        own = self.__dict__
        own["_network"] = network
        own["_given"] = self._counted_layers()
        for place, layer in enumerate(own["_given"]):
            self.add_module(str(place), layer)
        shapes = [symbol.shape for symbol in network.input_symbols]
        own["_build_shape"] = like_inputs(shapes)
        self._mark_built()
        self.eval()
        self._code()

    def _counted_layers(self) -> list[Layer]:
        network = self._graph("layers")
        return [layer for layer in network.layers if not isinstance(layer, InputLayer)]

    # --- the graph -------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Any]:
        """The layers; of a graph in Keras's order, input layers too; else those set as attributes."""
        if self._network is not None:
            return list(self._network.layers)
        self._adopt_lists()
        return list(_flat_children(self))

    def _listed(self) -> list[Any]:
        """What a summary lists: layers and recorded functions."""
        return self.layers if self._network is None else list(self._network.operations)

    def _saved_layers(self) -> list[Any]:
        """The layers that files list by class and number; others are found by their attributes."""
        return [] if self._network is None else self.layers

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """The layer of that name, or at that position in `layers`. ValueError if there is none."""
        if (name is None) == (index is None):
            raise ValueError(f"get_layer: give a name or an index, found name={name!r}, index={index!r}.")
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(f"Model {self.name!r} has {len(layers)} layers, found index={index}.")
            return layers[index]
        known = [getattr(layer, "name", None) for layer in layers]
        if name not in known:
            raise ValueError(f"Model {self.name!r} has no layer named {name!r}; it has {known}.")
        return layers[known.index(name)]

    def _ends(self, asked: str) -> Network | None:
        """The graph, or None where a model answers as a plain layer does."""
        return self._network

    @property
    def inputs(self) -> list[SymbolicTensor]:
        """The symbolic inputs, in a list. AttributeError while there is no graph."""
        return list(self._graph("inputs").input_symbols)

    @property
    def outputs(self) -> list[SymbolicTensor]:
        """The symbolic outputs, in a list. AttributeError while there is no graph."""
        return list(self._graph("outputs").output_symbols)

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs' layers."""
        return self._graph("input_names").input_names

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs' layers."""
        return self._graph("output_names").output_names

    @property
    def input(self) -> Any:
        """The symbolic inputs in the structure that was given."""
        network = self._ends("input")
        return super().input if network is None else _alone(network.inputs)

    @property
    def output(self) -> Any:
        """The symbolic outputs in the structure that was given."""
        network = self._ends("output")
        return super().output if network is None else network.returned

    @property
    def input_shape(self) -> Any:
        """The shapes of the inputs, with the batch, in their structure."""
        network = self._ends("input_shape")
        return super().input_shape if network is None else tree_map(lambda s: s.shape, _alone(network.inputs))

    @property
    def output_shape(self) -> Any:
        """The shapes of the outputs, with the batch, in their structure."""
        network = self._ends("output_shape")
        return super().output_shape if network is None else tree_map(lambda s: s.shape, network.returned)

    def _ledger_nodes(self) -> list[Node]:
        inside = [] if self._network is None else self._network.nodes
        return [*inside, *self.inbound_nodes]

    # --- copies ----------------------------------------------------------------------------------------------

    def _state_to_copy(self) -> dict[str, Any]:
        """As a layer's; the graph as a recipe, which the copy repeats with its own layers."""
        state = super()._state_to_copy()
        state.update(_run=None, _direct=None, _network=None, _kept_symbols=(), _kept_graph=self._graph_to_copy())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = state.pop("_kept_graph")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._graph_from_copy(kept)

    def _graph_to_copy(self) -> Any:
        """The graph as plain data: a recipe, and the operations that it names."""
        if self._network is None:
            return None
        return self._network.recipe(), {op.name: _to_copy(op) for op in self._network.operations}

    def _graph_from_copy(self, kept: Any) -> None:
        if kept is None:
            return
        recipe, operations = kept
        inputs, outputs = recipe.repeat({name: _from_copy(name, op) for name, op in operations.items()})
        self.__dict__["_network"] = Network(inputs, outputs, f"Model {self.name!r}")
        self._code()


def _alone(structure: Any) -> Any:
    return structure[0] if isinstance(structure, (list, tuple)) and len(structure) == 1 else structure


def _to_copy(operation: Any) -> Any:
    """An operation as copies keep it: an input layer by its arguments, a recorded function by the function."""
    if isinstance(operation, InputLayer):
        return operation.get_config()
    return operation.function if isinstance(operation, FunctionCall) else operation


def _from_copy(name: str, kept: Any) -> Any:
    if isinstance(kept, dict):
        return InputLayer.from_config(kept)
    return kept if isinstance(kept, Layer) else FunctionCall(kept, name)


def _flat_children(module: nn.Module) -> Iterator[nn.Module]:
    """The children, those in lists and dicts of modules too."""
    for child in module.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _flat_children(child)
        else:
            yield child
