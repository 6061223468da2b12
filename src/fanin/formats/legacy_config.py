"""Configs that Keras 1 and 2 wrote, in the form that Keras 3 writes and the rest of fanin reads.

Keras 2 names classes without their module; `lr` is now `learning_rate`, "Policy" `DTypePolicy`, and so on. Nothing is
made here, so that all class names can be looked at first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanin import constraints, losses, metrics, optimizers, regularizers
from fanin.errors import MismatchError
from fanin.initializers.base import family as initializers
from fanin.layers.base.layer import family as layers
from fanin.registry import Family, get_registered_object

_GRAPH = {"module": "keras.src.models.functional", "class_name": "Functional"}
_MODELS = {
    "Sequential": {"module": "keras", "class_name": "Sequential"},
    "Functional": _GRAPH,
    "Model": _GRAPH,
}
_PARTS: dict[str, Family[Any]] = {
    "initializer": initializers,
    "regularizer": regularizers.family,
    "constraint": constraints.family,
}
_RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}}
_BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")
_SCHEDULES = "keras.optimizers.schedules"
_GONE = ("jit_compile", "is_legacy_optimizer")  # arguments of Keras 2's optimizers


def model_config(described: Any, notes: list[str]) -> Any:
    """The config of a model.

    Args:
        described: the JSON of `model_config`.
        notes: gets what will compute other numbers than it did in Keras 2.
    """
    if not isinstance(described, dict) or "class_name" not in described or "config" not in described:
        raise MismatchError("expected the config of a model.")
    return _layer(described, notes)


def _layer(described: Any, notes: list[str]) -> Any:
    if not _is_object(described):
        return described
    name, config = described["class_name"], described["config"]
    custom = isinstance(name, str) and get_registered_object(name) is not None
    where = _MODELS.get(name) if isinstance(name, str) and not custom else None
    if "module" not in described:
        described = {**described, **where, "registered_name": None} if where else _with_module(described, layers)
    if isinstance(config, list):  # early Keras: the layers alone
        config = {"layers": config}
    if not isinstance(config, dict):
        return described
    renamed: dict[str, str] = {} if custom or not isinstance(name, str) else _RENAMED.get(name, {})
    given = {str(renamed.get(key, key)): _argument(key, value, notes) for key, value in config.items()}
    if given.get("activation") == "hard_sigmoid":
        notes.append(
            f"The activation 'hard_sigmoid' of layer {str(given.get('name'))[:100]!r} was clip(0.2 x + 0.5, 0, 1) in "
            "Keras 2; here, as in Keras 3, it is clip(x / 6 + 0.5, 0, 1)."
        )
    if isinstance(given.get("layers"), list):
        _as_graph_of_keras_3(given)
    return {**described, "config": given}


def _as_graph_of_keras_3(graph: dict[str, Any]) -> None:
    """One input or output stands alone; the first call of a Sequential in the graph is number 0, not 1."""
    layers = [layer for layer in graph["layers"] if _is_object(layer)]
    nodes = [node for layer in layers for node in _lists(layer.get("inbound_nodes"))]
    if not any(isinstance(node, list) for node in nodes):
        return
    for ends in ("input_layers", "output_layers"):
        if len(_lists(graph.get(ends))) == 1:
            graph[ends] = graph[ends][0]
    outputs = _lists(graph.get("output_layers"))
    places: dict[str, list[Any]] = {}
    for place in [*(place for node in nodes for place in _lists(node)), outputs, *outputs]:
        if isinstance(place, list) and len(place) >= 3 and isinstance(place[0], str) and isinstance(place[1], int):
            places.setdefault(place[0], []).append(place)
    for layer in layers:
        own = places.get(str(layer.get("name")), []) if layer["class_name"] == "Sequential" else []
        if own and max(place[1] for place in own) == len(_lists(layer.get("inbound_nodes"))):
            for place in own:
                place[1] -= 1


def _lists(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _argument(key: str, value: Any, notes: list[str]) -> Any:
    if key == "layers" and isinstance(value, list):
        return [_layer(item, notes) for item in value]
    if not _is_object(value) or "module" in value:
        return value
    if key == "dtype":
        inner = value["config"]
        return inner.get("name") if value["class_name"] == "Policy" and isinstance(inner, dict) else value
    part = _PARTS.get(key.rpartition("_")[2])
    if part is None:
        return _layer(value, notes)  # an activation, or a layer inside a layer
    return _with_module(value, part)


def compile_config(training: Any, notes: list[str]) -> dict[str, Any]:
    """How the model was compiled, from the JSON of `training_config`, in the form of a `.keras` archive."""
    if not isinstance(training, dict):
        raise MismatchError("expected how the model was compiled.")
    found = {
        "optimizer": _optimizer(training.get("optimizer_config"), notes),
        "loss": _map(training.get("loss"), _loss),
        "loss_weights": training.get("loss_weights"),
        "run_eagerly": bool(training.get("run_eagerly")),
    }
    for key in ("metrics", "weighted_metrics"):
        given = _map(training.get(key), _metric)
        found[key] = given[0] if isinstance(given, list) and len(given) == 1 and isinstance(given[0], list) else given
    return found


def _optimizer(described: Any, notes: list[str]) -> Any:
    if not _is_object(described) or not isinstance(described["config"], dict):
        raise MismatchError(f"expected the config of an optimizer, found {str(described)[:100]!r}.")
    config = {key: value for key, value in described["config"].items() if key not in _GONE}
    if "lr" in config:
        config["learning_rate"] = config.pop("lr")
    decay = config.pop("decay", None)
    if decay:
        notes.append(
            f"The optimizer's decay={decay!r} is left out: the learning rate stays {config.get('learning_rate')!r}. "
            "Use a learning rate schedule."
        )
    if "epsilon" in config and config["epsilon"] is None:
        del config["epsilon"]
    rate: Any = config.get("learning_rate")
    if _is_object(rate) and "module" not in rate:
        config["learning_rate"] = {"module": _SCHEDULES, "registered_name": None, **rate}
    name = described["class_name"]
    if isinstance(name, str) and get_registered_object(name) is None:
        name = name.removeprefix("Custom>")  # as Keras 2.11 calls its own
        lowered = name.lower()
        name = lowered if lowered in optimizers.family.names() else name
    return _with_module({**described, "class_name": name, "config": config}, optimizers.family)


def _loss(described: dict[str, Any]) -> Any:
    config = described["config"]
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if key != "fn"}
        if config.get("reduction") == "auto":
            config["reduction"] = "sum_over_batch_size"
    return _with_module({**described, "config": config}, losses.family)


def _metric(described: dict[str, Any]) -> Any:
    config = described["config"]
    if described["class_name"] == "MeanMetricWrapper" and isinstance(config, dict):
        named = [config.get("name"), config.get("fn")]
        everything = {*metrics.family.names(), *_BY_SHAPE}
        known = [name for name in named if isinstance(name, str) and name in everything]
        return known[0] if known else config.get("fn") or config.get("name")
    return _with_module(described, metrics.family)


# --- helpers ----------------------------------------------------------------------------------------------------------


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and "class_name" in value and "config" in value


def _map(value: Any, function: Any) -> Any:
    """The structure with `function` applied to each object config in it."""
    if _is_object(value):
        return value if "module" in value else function(value)
    if isinstance(value, dict):
        return {key: _map(item, function) for key, item in value.items()}
    return [_map(item, function) for item in value] if isinstance(value, list) else value


def _with_module(described: Mapping[str, Any], family: Family[Any]) -> dict[str, Any]:
    """The object config with the module that Keras 3 would name."""
    name = described["class_name"]
    if isinstance(name, str) and get_registered_object(name) is None and name in family.names():
        name = family.lookup(name).__name__
    return {"module": family.module, "registered_name": None, **described, "class_name": name}
