"""New models of the same architecture: from another model, or from JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from fanin.graph.node import FunctionCall
from fanin.graph.symbolic import SymbolicTensor
from fanin.graph.tree import leaves
from fanin.layers.base.layer import Layer
from fanin.layers.input_layer import InputLayer
from fanin.layers.module import TorchModule
from fanin.models.model import Functional, Model
from fanin.models.sequential import Sequential
from fanin.registry import custom_object_scope, deserialize, serialize_config, sharing
from fanin.training.compiled import take_compile_config


def clone_model(model: Model, input_tensors: Any = None, clone_function: Callable[[Any], Any] | None = None) -> Model:
    """A model of new layers with new weights, connected as in `model`.

    Args:
        model: a functional model or a Sequential; of another the class must have a `get_config`.
        input_tensors: symbolic tensors to begin with instead of new Inputs, in the structure of `model.inputs`.
        clone_function: from a layer to what takes its place; default a layer of equal config. Input layers are always
            new.

    A compiled model gives a compiled one, with an optimizer that has not begun, where all that it was compiled with has
    a config. Raises ValueError for torch modules in the model, which have no config, and for inputs of another number.
    After Keras's `clone_model`.

    >>> import fanin
    >>> model = fanin.Sequential([fanin.Input((4,)), fanin.layers.Dense(2)])
    >>> clone_model(model).output_shape
    (None, 2)
    """
    made = _connected(model, input_tensors, clone_function if clone_function is not None else _equal)
    with sharing() as own:
        how = take_compile_config(model.described_compile())
    if how is not None:
        with custom_object_scope(own):
            made.compile_from_config(how)
    return made


def _connected(model: Model, input_tensors: Any, clone: Callable[[Any], Any]) -> Model:
    """The clone before it is compiled."""
    if isinstance(model, Sequential):
        begin = [InputLayer.from_config(model._input_layer.get_config())] if model._input_layer is not None else []
        own: dict[str, Any] = {"name": model.name, "dtype": model.dtype_policy}
        copy: Model = Sequential([*begin, *(clone(layer) for layer in model._listed())], **own)
        return copy if input_tensors is None else Functional(input_tensors, copy(input_tensors), **own)
    if model._network is None:
        again: Model = _anew(model)
        return again
    network = model._network
    given = list(leaves(input_tensors)) if input_tensors is not None else []
    if given and len(given) != len(network.input_symbols):
        raise ValueError(
            f"clone_model: model {model.name!r} has {len(network.input_symbols)} inputs, found {len(given)}."
        )
    ends = dict(zip(network.input_names, given, strict=True)) if given else {}
    operations = {op.name: _in_place_of(op, ends, clone) for op in network.operations}
    inputs, outputs = network.recipe().repeat(operations)
    made: Model = type(model)(inputs, outputs, name=model.name)
    made.dtype_policy = model.dtype_policy
    return made


def _in_place_of(operation: Any, ends: Mapping[str, SymbolicTensor], clone: Callable[[Any], Any]) -> Any:
    if isinstance(operation, FunctionCall):
        return operation
    if isinstance(operation, InputLayer):
        given = ends.get(operation.name)
        return InputLayer.from_config(operation.get_config()) if given is None else given.layer
    return clone(operation)


def _equal(layer: Layer) -> Layer:
    if isinstance(layer, TorchModule):
        raise ValueError(
            f"Layer {layer.name!r} holds the torch module {layer.module!r}, which has no config. Use "
            "copy.deepcopy(model), or give a clone_function."
        )
    return clone_model(layer) if isinstance(layer, Model) else _anew(layer)


def _anew(layer: Any) -> Any:
    """A layer of equal config, whose own classes and functions need no registration."""
    with sharing() as own:
        config = serialize_config(layer)
    with custom_object_scope(own):
        return type(layer).from_config(config)


def model_from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The model that `model.to_json()`, here or in Keras, described, with new weights.

    Raises ValueError for text that is no JSON, and for names that are neither registered nor in `custom_objects`.
    No code in the text is run.
    """
    try:
        config = json.loads(json_string)
    except json.JSONDecodeError as error:
        raise ValueError(f"model_from_json: expected JSON, found {json_string[:40]!r}: {error}") from None
    how = take_compile_config(config) if isinstance(config, dict) else None
    with custom_object_scope(custom_objects):
        model = deserialize(config)
    if not isinstance(model, Model):
        raise ValueError(
            f"model_from_json: {config.get('class_name') if isinstance(config, dict) else config!r} is no model."
        )
    if how is not None:
        with custom_object_scope(custom_objects):
            model.compile_from_config(how)
    return model
