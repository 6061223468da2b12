"""A chain of layers."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from fanin.dtypes import DTypePolicy
from fanin.graph.symbolic import SymbolicTensor
from fanin.layers.base.layer import family
from fanin.layers.base.mask_propagation import with_masks
from fanin.layers.input_layer import InputLayer
from fanin.layers.module import TorchModule, run_module
from fanin.models.chain import Chain
from fanin.models.execution import runs_graph
from fanin.models.model import models
from fanin.models.network import Network
from fanin.registry import custom_object_scope, deserialize, serialize


@models.entry()
class Sequential(Chain):
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
        self._begin_empty()
        given = [layers] if isinstance(layers, nn.Module) else list(layers or ())
        for layer in given:
            self.add(layer)
        if not trainable:
            self.trainable = False
        self.eval()

    # --- as nn.Sequential ------------------------------------------------------------------------------------

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

    # --- the graph -------------------------------------------------------------------------------------------

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
            inputs = with_masks(f"Model {self.name!r}", inputs, mask)
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


def _shown(given: Any) -> str:
    return f"{type(given).__name__} {getattr(given, 'name', '')!r}"


def _policy(described: Any) -> DTypePolicy:
    found = deserialize(described) if isinstance(described, dict) else DTypePolicy(described)
    assert isinstance(found, DTypePolicy)
    return found
