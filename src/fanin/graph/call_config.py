"""Recorded functions as files have them: as operations of Keras where one does the same, else by torch's name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fanin.graph.functions import Arguments, describe_function, without_infinities
from fanin.graph.keras import as_operation
from fanin.graph.node import Node
from fanin.registry import snake_case


def describe_call(node: Node, used: Collection[int], layers: Collection[str]) -> tuple[dict[str, Any], Arguments]:
    """The object that stands for the function of a call in files, and the arguments of the call, symbols in place.

    Args:
        node: the call.
        used: the indices of its results that the graph goes on with.
        layers: the names of the layers around it.

    Raises ValueError for a function that files may not name.
    """
    name = node.layer.name
    as_keras = as_operation(node, used)
    if as_keras is not None:
        operation, config, args = as_keras
        # A class without this argument names its object by its own class: that must be no name of a layer.
        if operation.named or snake_case(operation.name) in layers:
            config = {"name": name, **config}
        described = {"module": operation.module, "class_name": operation.name, "config": config,
                     "registered_name": operation.name}  # fmt: skip
        return described, without_infinities((args, {}))
    entry, arguments = describe_function(node.layer.function, node.args, node.kwargs)
    described = {"module": entry.module, "class_name": entry.__name__, "config": {"name": name}}
    return {**described, "registered_name": None}, without_infinities(arguments)
