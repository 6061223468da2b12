"""The layers of a Sequential, one after another: added, removed, replaced, and called symbolically."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from fanin.activations.family import family as activations
from fanin.config import unique_name
from fanin.graph.symbolic import SymbolicTensor
from fanin.layers.base.layer import Layer
from fanin.layers.base.shapes import known_shape
from fanin.layers.input_layer import InputLayer
from fanin.layers.module import TorchModule
from fanin.models.model import Model
from fanin.models.network import Network
from fanin.registry import snake_case


class Chain(Model):
    """The part of a Sequential that keeps its layers and their symbolic calls.

    `_given` are the layers and modules as they were given, `_operations` what is called for each: a layer around a
    module. `_symbol` is the output of the last, once the input is known.
    """

    _chain: Network | None = None
    _given: list[Any]
    _own_lists = frozenset(["_given", "_operations"])

    def _begin_empty(self) -> None:
        own = self.__dict__
        own["_given"], own["_operations"], own["_taken"] = [], [], set()
        own["_input_layer"], own["_symbol"] = None, None

    @property
    def layers(self) -> list[Any]:
        """The layers and modules as they were given, without the input layer."""
        self._see_children()
        return list(self._given)

    def add(self, layer: Any) -> None:
        """Append a layer, an nn.Module or, first, an Input. Else a TypeError; a name twice is a ValueError."""
        if isinstance(layer, SymbolicTensor) and isinstance(layer.layer, InputLayer):
            layer = layer.layer
        self._see_children()
        if isinstance(layer, InputLayer):
            self._begin(layer)
            return
        operation = self._operation(layer, self._taken)
        first = self._input_layer
        if not self._operations and first is None:
            first = _begins_with(operation)
        symbol = self._symbol if self._input_layer is first or first is None else first.inbound_nodes[0].symbol(0)
        if symbol is not None:
            symbol = operation(symbol)
        self.__dict__["_input_layer"], self.__dict__["_symbol"] = first, symbol
        self.add_module(str(len(self._given)), layer)
        self._given.append(layer)
        self._taken.add(operation.name)
        self._operations.append(operation)
        layer.eval()
        if not self.__dict__["_trainable"]:
            operation.trainable = False
        if self._symbol is not None:
            self._become_built()
            self._forget_network()
        elif self.built:  # called before, on layers that cannot be tried on symbols
            self.built = False

    append = add

    def _operation(self, layer: Any, taken: set[str]) -> Layer:
        """What is called for a layer or module; its name must not be among `taken`."""
        if not isinstance(layer, nn.Module):
            raise TypeError(
                f"Sequential {self.name!r}: expected a layer or a torch.nn.Module, found {layer!r}.{_hint(layer)}"
            )
        operation = layer if isinstance(layer, Layer) else TorchModule(layer, name=_module_name(layer))
        if operation.name in taken:
            raise ValueError(
                f"Sequential {self.name!r} already has a layer named {operation.name!r}; names must differ."
            )
        return operation

    def _see_replaced(self, given: list[Any]) -> None:
        """Take over children that were replaced, added or removed under the names of positions."""
        places = sorted((name for name in self._modules if name.isdecimal()), key=int)
        chain: list[Any] = [self._modules[name] for name in places]
        if chain == given:
            return
        known = {id(layer): operation for layer, operation in zip(given, self._operations, strict=True)}
        operations: list[Layer] = []
        taken: set[str] = set()
        for layer in chain:
            if isinstance(layer, InputLayer):
                raise ValueError(f"Sequential {self.name!r}: an Input can only come first, and once.")
            operation = known.get(id(layer))
            if operation is None or operation.name in taken:
                operation = self._operation(layer, taken)
            operations.append(operation)
            taken.add(operation.name)
        self._forget_calls()
        for place, (name, layer) in enumerate(zip(places, chain, strict=True)):
            if name != str(place):
                del self._modules[name]
                self._modules[str(place)] = layer
        own = self.__dict__
        own["_given"], own["_operations"], own["_taken"], own["_symbol"] = chain, operations, taken, None
        self._forget_network()
        for layer, operation in zip(chain, operations, strict=True):
            if id(layer) not in known:
                layer.train(self.training)
                if not own["_trainable"]:
                    operation.trainable = False
        if self._input_layer is not None:
            with contextlib.suppress(ValueError):  # as at a first call: the layers are then called one by one
                self._chain_from(self._input_layer)

    def _forget_calls(self) -> None:
        """Take the symbolic calls of the chain away from its layers."""
        network = self._made_network()
        mine = set() if network is None else {*map(id, network.nodes)}
        for operation in self._operations:
            operation.inbound_nodes[:] = [node for node in operation.inbound_nodes if id(node) not in mine]

    def _begin(self, layer: InputLayer) -> None:
        if self._operations or self._input_layer is not None:
            raise ValueError(f"Sequential {self.name!r}: an Input can only come first, and once.")
        self.__dict__["_input_layer"] = layer
        self.__dict__["_symbol"] = layer.inbound_nodes[0].symbol(0)

    def pop(self) -> Any:
        """Take away the last layer and return it. TypeError if there is none."""
        self._see_children()
        if not self._given:
            raise TypeError(f"Sequential {self.name!r} has no layer to pop.")
        operation, layer = self._operations.pop(), self._given.pop()
        self._taken.discard(operation.name)
        del self._modules[str(len(self._given))]
        self._forget_network()
        if self._symbol is not None:
            node = self._symbol.node
            self.__dict__["_symbol"] = node.input_tensors[0]
            operation.inbound_nodes.remove(node)
        if not self._given:
            self.built = False
        return layer

    def build(self, input_shape: Any) -> None:
        """Build all layers for inputs of this shape (with the batch, None where unknown)."""
        if self._symbol is None:
            self._chain_from(InputLayer(batch_shape=tuple(input_shape)))

    def _chain_from(self, layer: InputLayer) -> None:
        """Call every layer on the output of the one before, symbolically; on an error no call is left behind."""
        counts = [len(operation.inbound_nodes) for operation in self._operations]
        symbol = layer.inbound_nodes[0].symbol(0)
        try:
            for operation in self._operations:
                symbol = operation(symbol)
        except BaseException:
            for operation, count in zip(self._operations, counts, strict=True):
                del operation.inbound_nodes[count:]
            raise
        self.__dict__["_input_layer"], self.__dict__["_symbol"] = layer, symbol
        self._forget_network()
        self._become_built()

    def _become_built(self) -> None:
        if "_building" not in self.__dict__ and self._input_layer is not None:
            self.__dict__["_build_shape"] = self._input_layer.batch_shape
            self._mark_built()

    def _build_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """At the first real call: with symbolic calls where the layers can be tried on symbols, else without."""
        # If not, the real call that follows builds the layers one by one, or shows the error where it belongs.
        shape = known_shape(args[0]) if args and hasattr(args[0], "shape") else ()
        with contextlib.suppress(ValueError):
            if shape:
                self.build((None, *shape[1:]))

    # --- the graph -------------------------------------------------------------------------------------------

    @property
    def _network(self) -> Network | None:  # type: ignore[override]
        """The chain as a graph, made when it is asked for; None while the input shape is unknown."""
        if not torch.compiler.is_compiling():
            self._see_children()
        return self._made_network()

    def _made_network(self) -> Network | None:
        if self._chain is None and self._symbol is not None:
            source = self._input_layer.inbound_nodes[0].symbol(0)
            self.__dict__["_chain"] = Network(source, self._symbol, f"Sequential {self.name!r}")
        return self._chain

    def _forget_network(self) -> None:
        self.__dict__["_chain"] = None
        self._forget_code()


def _hint(found: Any) -> str:
    """How what was found becomes a layer, to append to an error message."""
    if isinstance(found, type):
        return f" A layer is an instance: {found.__name__}(...)."
    if callable(found) or (isinstance(found, str) and found in activations.names()):
        shown = repr(found) if isinstance(found, str) else getattr(found, "__name__", "f")
        return f" An activation is a layer as fanin.layers.Activation({shown})."
    return ""


def _module_name(module: nn.Module) -> str:
    return unique_name(snake_case(type(module).__name__))


def _begins_with(operation: Layer) -> InputLayer | None:
    """The input of a chain whose first layer knows its input shape: it was told, or is a model of one input."""
    if operation.batch_input_shape is not None:
        return InputLayer(batch_shape=operation.batch_input_shape)
    network = operation._network if isinstance(operation, Model) else None
    if network is None or isinstance(network.inputs, dict) or len(network.input_symbols) != 1:
        return None
    symbol = network.input_symbols[0]
    return InputLayer(batch_shape=symbol.shape, dtype=symbol.dtype)
