"""A chain of layers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from fanin.activations.family import family as activations
from fanin.config import unique_name
from fanin.dtypes import DTypePolicy
from fanin.graph.symbolic import SymbolicTensor
from fanin.layers.input_layer import InputLayer
from fanin.layers.layer import Layer, family
from fanin.layers.module import TorchModule, run_module
from fanin.layers.shapes import known_shape
from fanin.masks import with_mask
from fanin.models.model import Model, models
from fanin.models.network import Network
from fanin.models.running import runs_graph
from fanin.registry import custom_object_scope, deserialize, serialize, snake_case


@models.entry()
class Sequential(Model):
    """Layers, each fed with the output of the one before. Any `torch.nn.Module` is a layer.

    Args:
        layers: layers, nn.Modules, and at the start an optional `fanin.Input(shape)`.
        trainable: whether the weights train.
        name: default "sequential", made unique.

    The model is built, and its layers know their symbolic inputs and outputs, as soon as the input shape is known: from
    an Input, from the first layer's `input_shape`, from a first layer that is a model with a graph, or from the first
    call. A child that is replaced, `model._modules["1"] = module`, is called from then on. `state_dict` keys are
    positions: "0.kernel".
    Errors of a layer pass through; the model is then as before.

    >>> import torch
    >>> from fanin.layers import Dense
    >>> model = Sequential([Dense(32, activation="relu", input_shape=(16,)), Dense(10)])
    >>> model.output_shape
    (None, 10)
    >>> model(torch.ones(4, 16)).shape
    torch.Size([4, 10])
    """

    _chain: Network | None = None
    _given: list[Any]
    _own_lists = frozenset(["_given", "_operations"])

    def __init__(
        self,
        layers: Iterable[Any] | nn.Module | None = None,
        trainable: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ):
        if isinstance(trainable, (nn.Module, SymbolicTensor)):
            raise TypeError(
                f"{type(self).__name__} takes its layers in a list, Sequential([first, second]); found "
                f"{_shown(trainable)} as the second argument, which is `trainable`."
            )
        super().__init__(name=name, trainable=trainable, **kwargs)
        own = self.__dict__
        own["_given"], own["_operations"], own["_taken"] = [], [], set()
        own["_input_layer"], own["_symbol"] = None, None
        given = [layers] if isinstance(layers, nn.Module) else list(layers or ())
        for layer in given:
            self.add(layer)
        if not trainable:
            self.trainable = False
        self.eval()

    # --- the chain -------------------------------------------------------------------------------------------

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

    def __len__(self) -> int:
        """The number of layers, without the input layer."""
        return len(self.layers)

    def __bool__(self) -> bool:
        """True, also without layers: a model is no list."""
        return True

    def __iter__(self) -> Iterator[Any]:
        """The layers one by one."""
        return iter(self.layers)

    def __getitem__(self, index: int | slice) -> Any:
        """One layer, or for a slice a new Sequential of the same layers."""
        found = self.layers[index]
        return Sequential(found) if isinstance(index, slice) else found

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

    def _graph(self, asked: str) -> Network:
        if self._network is None:
            raise AttributeError(
                f"Sequential {self.name!r} does not know its input shape yet, so it has no {asked!r}. Begin it with "
                "fanin.Input(shape), call it, or build it."
            )
        return self._network

    def _ends(self, asked: str) -> Network:
        return self._graph(asked)

    def _known_outputs(self) -> tuple[Any, list[str] | None]:
        return super()._known_outputs() or ((None,), None)  # always one

    def _callable(self, operation: Any) -> Any:
        """A layer, or the module that was given where only a layer can stand in a graph."""
        given = isinstance(operation, TorchModule) and any(operation.module is module for module in self._given)
        return functools.partial(run_module, operation.module) if given else operation

    def _listed(self) -> list[Any]:
        self._see_children()
        return list(self._operations)

    def _saved_layers(self) -> list[Any]:
        return self.layers

    @runs_graph
    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The last layer's output."""
        # A tracer cannot write code; what it traces of the loop is the same.
        if self._symbol is not None and (self._run is not None or not torch.compiler.is_compiling()):
            return super().call(inputs, training, mask)
        if mask is not None:
            inputs = with_mask(inputs, mask)
        for operation in self._operations:
            inputs = self._callable(operation)(inputs)
        if not self.built:
            self._mark_built()
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The last layer's output shape."""
        for operation in self._operations:
            input_shape = operation.compute_output_shape(input_shape)
        return input_shape

    # --- config ----------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The layers and their configs as plain JSON data, in Keras's form."""
        self._see_children()
        own: dict[str, Any] = {"name": self.name, "trainable": self.trainable,
                               "dtype": serialize(self.dtype_policy)}  # fmt: skip
        own["layers"] = [] if self._input_layer is None else [serialize(self._input_layer)]
        for operation in self._operations:
            if isinstance(operation, TorchModule) and type(operation) is TorchModule:
                raise ValueError(
                    f"Sequential {self.name!r} holds the torch module {operation.module!r}, which has no config. "
                    "Save its weights by state_dict, or use the fanin layer of that kind."
                )
            own["layers"].append(serialize(operation))
        if self._input_layer is not None:
            own["build_input_shape"] = list(self._input_layer.batch_shape)
        return own

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Sequential:
        """A model with new weights from what `get_config` gave; Keras 2's and 3's configs too."""
        if isinstance(config, list):  # Keras 1 and early Keras 2: only the layers
            config = {"layers": config}
        with custom_object_scope(custom_objects):
            policy = config.get("dtype")
            known: dict[str, Any] = {} if policy is None else {"dtype": _policy(policy)}
            model = cls(name=config.get("name"), **known)
            for described in config["layers"]:
                layer = family.deserialize(described)
                assert layer is not None
                model.add(layer)
        shape = config.get("build_input_shape")
        if shape is not None and not model.built and model.layers:
            model.build(tuple(shape))
        if config.get("trainable") is False:
            model.trainable = False
        return model

    def _state_to_copy(self) -> dict[str, Any]:
        """As a layer's; the symbolic chain is made anew in the copy."""
        state = super()._state_to_copy()
        state.update(_symbol=None, _chain=None, _operations=[])
        del state["_network"]
        return state

    def _graph_to_copy(self) -> dict[int, str]:
        """The names of the layers around modules; they are made anew."""
        return {i: op.name for i, op in enumerate(self._operations) if op is not self._given[i]}

    def _graph_from_copy(self, kept: dict[int, str]) -> None:
        layer, self.__dict__["_input_layer"] = self._input_layer, None
        operations = [TorchModule(m, name=kept[i]) if i in kept else m for i, m in enumerate(self._given)]
        self.__dict__["_operations"] = operations
        if layer is not None:
            self._chain_from(InputLayer(batch_shape=layer.batch_shape, dtype=layer.dtype, name=layer.name))


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


def _shown(given: Any) -> str:
    return f"{type(given).__name__} {getattr(given, 'name', '')!r}"


def _policy(described: Any) -> DTypePolicy:
    found = deserialize(described) if isinstance(described, dict) else DTypePolicy(described)
    assert isinstance(found, DTypePolicy)
    return found
