"""The graph of a model as plain JSON data in Keras's form, and back; Keras 2's form is read too.

::

    {"layers": [{..., "name": "dense", "inbound_nodes": [{"args": [<tensor>], "kwargs": {}}]}, ...],
     "input_layers": ["input_layer", 0, 0], "output_layers": [["dense", 0, 0], ["dense_1", 0, 0]]}

A tensor is {"class_name": "__keras_tensor__", "config": {"shape", "dtype", "keras_history": [layer, call, output]}}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanin.dtypes import dtype_name
from fanin.errors import MismatchError
from fanin.graph.call_config import describe_call
from fanin.graph.functions import StoredCall
from fanin.graph.node import FunctionCall
from fanin.graph.recipe import Recipe, Ref
from fanin.graph.symbolic import SymbolicTensor, symbols_in
from fanin.graph.tree import tree_map
from fanin.layers.base.layer import Layer, family
from fanin.models.graph_masks import with_masks
from fanin.models.network import Network
from fanin.registry import Family, deserialize, serialize

_Place = tuple[str, int]  # (name of an operation, number of its call)


def describe(network: Network, own_node: type) -> dict[str, Any]:
    """`layers`, `input_layers` and `output_layers` of a graph.

    Args:
        network: the graph.
        own_node: the class of models whose outputs Keras counts from 1 at the ends of a graph: their first call is the
            one that made them.
    """
    operations, keywords = with_masks(network)
    numbers: dict[int, int] = {}
    for operation in operations:
        kept = [node for node in operation.inbound_nodes if id(node) in keywords]
        numbers.update((id(node), number) for number, node in enumerate(kept))

    def tensor(symbol: SymbolicTensor) -> dict[str, Any]:
        history = [symbol.layer.name, numbers[id(symbol.node)], symbol.index]
        inner = {"shape": list(symbol.shape), "dtype": dtype_name(symbol.dtype), "keras_history": history}
        return {"class_name": "__keras_tensor__", "config": inner}

    def call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        def leaf(value: Any) -> Any:
            return tensor(value) if isinstance(value, SymbolicTensor) else serialize(value)

        return {"args": tree_map(leaf, list(args)), "kwargs": tree_map(leaf, kwargs)}

    used: dict[int, set[int]] = {}
    calls_inside = [node for operation in operations for node in operation.inbound_nodes if id(node) in keywords]
    taken = [symbol for node in calls_inside for symbol in symbols_in((node.args, keywords[id(node)]))]
    for symbol in [*taken, *network.output_symbols]:
        used.setdefault(id(symbol.node), set()).add(symbol.index)
    names = {layer.name for layer in network.layers}

    layers = []
    for operation in operations:
        nodes = [node for node in operation.inbound_nodes if id(node) in keywords and node.input_tensors]
        try:
            if isinstance(operation, FunctionCall):
                described, arguments = describe_call(nodes[0], used.get(id(nodes[0]), ()), names)
                calls = [call(*arguments)]
            else:
                described, calls = serialize(operation), [call(node.args, keywords[id(node)]) for node in nodes]
        except ValueError as error:
            raise ValueError(f"{network.who}, layer {operation.name!r}: {error}") from None
        layers.append({**described, "name": operation.name, "inbound_nodes": calls})

    def end(symbol: SymbolicTensor) -> list[Any]:
        first = 1 if isinstance(symbol.layer, own_node) else 0
        return [symbol.layer.name, numbers[id(symbol.node)] + first, symbol.index]

    return {
        "layers": layers,
        "input_layers": tree_map(end, network.inputs),
        "output_layers": tree_map(end, network.outputs),
    }


def rebuild(config: Mapping[str, Any], models: Family[Any], own_node: type) -> tuple[Any, Any]:
    """The symbolic inputs and outputs of the graph that `describe`, or Keras, described; the layers are new.

    Raises MismatchError (a ValueError) for tensors that no call makes, and for loops.
    """
    operations: dict[str, Any] = {}
    calls: dict[_Place, tuple[Any, Any]] = {}
    for described in config["layers"]:
        operation = _operation(described, models)
        name = described.get("name", operation.name)
        operations[name] = operation
        for number, node in enumerate(described.get("inbound_nodes") or [None]):
            args, kwargs = _call(node, operations, own_node)
            calls[name, number] = operation.adapt(args, kwargs) if isinstance(operation, StoredCall) else (args, kwargs)
    order = _order(calls)
    positions = {place: position for position, place in enumerate(order)}

    def position(place: _Place, tensor: int) -> Ref:
        if place not in positions:
            raise MismatchError(
                f"The graph takes output {tensor} of call {place[1]} of {place[0]!r}, which is not made."
            )
        return Ref(positions[place], tensor)

    def refer(leaf: Any) -> Any:
        return position((leaf.name, leaf.call), leaf.tensor) if isinstance(leaf, _Tensor) else leaf

    def end(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: end(item) for key, item in value.items()}
        if len(value) == 3 and isinstance(value[0], str):
            first = 1 if isinstance(operations.get(value[0]), own_node) and value[1] > 0 else 0
            return position((value[0], int(value[1]) - first), int(value[2]))
        return [end(item) for item in value]

    made = [(place[0], *(tree_map(refer, part) for part in calls[place])) for place in order]
    ends = end(config["input_layers"]), end(config["output_layers"])
    try:
        return Recipe(made, *ends).repeat(operations)
    except IndexError:
        raise MismatchError("The graph takes an output that its call does not have.") from None


class _Tensor:
    """Output `tensor` of call `call` of the operation `name`."""

    __slots__ = ("call", "name", "tensor")

    def __init__(self, name: str, call: int, tensor: int):
        self.name, self.call, self.tensor = str(name), int(call), int(tensor)


def _operation(described: Mapping[str, Any], models: Family[Any]) -> Any:
    if "module" in described:
        made = deserialize(described)
    elif described.get("class_name") in models.names():  # Keras 2
        made = models.deserialize(described)
    else:
        made = family.deserialize(described)
    if not isinstance(made, (Layer, FunctionCall)):
        raise MismatchError(f"Expected a layer, found {described.get('class_name')!r}.")
    return made


def _call(node: Any, operations: Mapping[str, Any], own_node: type) -> tuple[Any, Any]:
    """The arguments of one call, with a `_Tensor` for each symbolic one."""
    if node is None:
        return (), {}
    if isinstance(node, list):  # Keras 2: [[layer, call, output, kwargs], ...]
        inputs = [_Tensor(name, int(call) - _skipped(operations.get(name), int(call), own_node), output)
                  for name, call, output, *_ in node]  # fmt: skip
        kwargs = node[0][3] if node and len(node[0]) > 3 else {}
        args: Any = (inputs[0] if len(inputs) == 1 else inputs,)
    else:
        args, kwargs = tuple(_arguments(node["args"])), _arguments(node["kwargs"])
    return args, {key: value for key, value in kwargs.items() if value is not None or key not in ("mask", "training")}


def _skipped(operation: Any, call: int, own_node: type) -> int:
    return 1 if isinstance(operation, own_node) and call > 0 else 0


def _arguments(value: Any) -> Any:
    """Arguments from JSON: tensors by where they come from, the rest as the registry reads it."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            return _Tensor(*value["config"]["keras_history"])
        if "class_name" in value and "config" in value:
            return deserialize(value)
        return {key: _arguments(item) for key, item in value.items()}
    return [_arguments(item) for item in value] if isinstance(value, list) else value


def _order(calls: Mapping[_Place, tuple[Any, Any]]) -> list[_Place]:
    """The calls in an order that runs: after those they depend on, and the calls of one layer one after another."""
    waiting: dict[_Place, int] = {}
    readers: dict[_Place, list[_Place]] = {}
    for place, parts in calls.items():
        needs = {(t.name, t.call) for t in _tensors(parts)}
        if place[1] > 0:
            needs.add((place[0], place[1] - 1))
        waiting[place] = len(needs)
        for need in needs:
            readers.setdefault(need, []).append(place)
    ready = [place for place, count in waiting.items() if count == 0]
    order: list[_Place] = []
    for place in ready:  # grows while it is walked
        order.append(place)
        for reader in readers.get(place, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    if len(order) < len(calls):
        stuck = sorted({name for name, number in calls if waiting[name, number]})
        raise MismatchError(f"The graph has loops or takes tensors that are never made, at {stuck[:20]}.")
    return order


def _tensors(value: Any) -> list[_Tensor]:
    found: list[_Tensor] = []
    tree_map(lambda leaf: found.append(leaf) if isinstance(leaf, _Tensor) else None, value)
    return found
