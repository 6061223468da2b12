"""Objects from plain JSON data. Their classes and functions are looked up in tables, and never imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fanin.dtypes import as_dtype, dtype_name
from fanin.errors import MismatchError, nearest
from fanin.registry.builtin import builtin_classes, find_builtin, find_builtin_function
from fanin.registry.own import custom_object_scope, get_custom_objects, get_registered_object
from fanin.registry.shared import keep_module, module_of


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True) -> Any:
    """The value that `serialize` described. Only registered and built-in names are found; nothing is imported.

    Args:
        config: plain JSON data.
        custom_objects: names of your own functions and classes, for this call.
        safe_mode: kept for Keras; True and False do the same, as no code in a config ever runs.

    Raises `MismatchError` (a ValueError) for a name that is not known.
    """
    with custom_object_scope(custom_objects):
        return _deserialize(config)


def _deserialize(config: Any) -> Any:
    if isinstance(config, list):
        return [_deserialize(item) for item in config]
    if not isinstance(config, Mapping):
        return config
    if "class_name" not in config or "config" not in config:
        return {key: _deserialize(value) for key, value in config.items()}
    inner = config["config"]
    match config["class_name"]:
        case "__numpy__":  # only known names of dtypes: in numpy's own language one could ask for gigabytes
            return np.asarray(inner["value"], dtype=dtype_name(as_dtype(inner["dtype"])))
        case "__tensor__":
            return torch.tensor(inner["value"], dtype=as_dtype(inner["dtype"]))
        case "__slice__":
            return slice(*(_deserialize(inner[end]) for end in ("start", "stop", "step")))
        case "__ellipsis__":
            return Ellipsis
    return _deserialize_object(config)


def _deserialize_object(config: Mapping[str, Any]) -> Any:
    number = config.get("shared_object_id")
    known = module_of(number)
    if known is not None:
        return known
    found = find_class(config)
    if config["class_name"] == "function":
        return found
    inner = config["config"]
    inner = dict(inner) if isinstance(inner, Mapping) else inner  # Keras's guides write into it
    made = found.from_config(inner) if hasattr(found, "from_config") else found(**inner)
    if config.get("build_config") and hasattr(made, "build_from_config"):
        made.build_from_config(config["build_config"])
    keep_module(number, made)
    return made


def with_objects(value: Any) -> Any:
    """A value of a config with the objects that it describes in Keras 3's form, found while their scope lasts."""
    if isinstance(value, list):
        return [with_objects(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "class_name" in value and "config" in value:
        return deserialize(value) if "module" in value else value  # Keras 2's are found by their family
    return {key: with_objects(item) for key, item in value.items()}


def find_class(config: Mapping[str, Any]) -> Any:
    """The class (or function) that an object config names, from the tables and never by import."""
    name, module, registered = config["class_name"], config.get("module"), config.get("registered_name")
    is_function = name == "function"
    if is_function:
        name = registered = config["config"]
        if not isinstance(name, str):
            raise MismatchError(
                "This config holds the code of a function (a lambda); fanin never runs code from a file."
            )
    ours = None if is_function else find_builtin(module, name)
    # As in Keras: what a file says is fanin's own is not exchanged for a class of the same name.
    for candidate in (registered, None if ours is not None and registered is None else name):
        if isinstance(candidate, str):
            found = get_registered_object(candidate)
            if found is not None:
                return found
    found = find_builtin_function(name) or find_builtin(module, name) if is_function else ours
    if found is None:
        known = {*builtin_classes(), *get_custom_objects()}
        raise MismatchError(
            f"Unknown class {name!r} (module {module!r}, registered name {registered!r}).{nearest(name, known)} "
            "Register your own with @fanin.saving.register_keras_serializable(), or pass custom_objects={...}."
        )
    return found
