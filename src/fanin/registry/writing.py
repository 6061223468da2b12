"""Objects as plain JSON data, in the form that Keras writes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import EllipsisType
from typing import Any

import numpy as np
import torch

from fanin.dtypes import dtype_name
from fanin.registry.builtin import find_builtin, find_builtin_function, place_of
from fanin.registry.own import get_registered_name, name_in_scope
from fanin.registry.shared import claim_name, number_of

Json = dict[str, Any]

_NOT_OWN = ("fanin", "torch")  # packages whose classes and functions are in a table or in no file


def serialize(obj: Any) -> Any:
    """Plain JSON data for a value of a config, in the form that Keras writes.

    Numbers, strings, lists and dicts stay; an object becomes {"module", "class_name", "config", "registered_name"}, and
    so do the objects in its config. Classes and functions that nobody registered are written under the name that they
    have in a `custom_object_scope`, else under their own, by which `custom_objects` finds them. Raises ValueError, with
    the way out, for a lambda, for what has no `get_config`, and for names that fanin's own objects have.
    """
    match obj:
        case None | bool() | int() | float() | str():
            return obj
        case np.generic():
            return obj.item()
        case list() | tuple():
            return [serialize(item) for item in obj]
        case torch.dtype():
            return dtype_name(obj)
        case Mapping():
            return {str(key): serialize(value) for key, value in obj.items()}
        case slice():
            return _value("__slice__", start=serialize(obj.start), stop=serialize(obj.stop), step=serialize(obj.step))
        case EllipsisType():
            return _value("__ellipsis__")
        case torch.Tensor():
            return _value("__tensor__", value=obj.detach().tolist(), dtype=dtype_name(obj.dtype))
        case np.ndarray():
            return _value("__numpy__", value=obj.tolist(), dtype=obj.dtype.name)
    if not inspect.isclass(obj) and hasattr(obj, "get_config"):
        return _serialize_instance(obj)
    return _serialize_function(obj)


def _value(kind: str, **config: Any) -> Json:
    """A value that JSON lacks."""
    return {"class_name": kind, "config": config}


def serialize_config(obj: Any, method: str = "get_config", found: Any = None) -> Json:
    """What `obj.get_config()`, or another such method, returns, as plain JSON data, objects in it too.

    `found` is what it returned, where it was asked already.

    Raises ValueError that names the object and the key for a value that has no form in files.
    """
    given = getattr(obj, method)() if found is None else found
    if not isinstance(given, Mapping):
        raise TypeError(f"{_shown(obj)}: {method}() must return a dict, found {given!r}.")
    config = {}
    for key, value in given.items():
        try:
            config[str(key)] = serialize(value)
        except ValueError as error:
            raise ValueError(f"{_shown(obj)}, {method}()[{key!r}]: {error}") from None
    return config


def _shown(obj: Any) -> str:
    """ "Dense 'dense_1'", or the class alone."""
    name = getattr(obj, "name", None)
    return f"{type(obj).__name__} {name!r}" if isinstance(name, str) else type(obj).__name__


def _serialize_instance(obj: Any) -> Json:
    cls = type(obj)
    registered, place = get_registered_name(cls), place_of(cls)
    if registered is not None:
        module, name = None, cls.__name__
    elif place is not None:
        module, name = place
    else:
        module, name, registered = _own_class(cls)
    described: Json = {"module": module, "class_name": name, "config": serialize_config(obj)}
    described["registered_name"] = registered
    built_from = obj.get_build_config() if hasattr(obj, "get_build_config") else None
    if built_from is not None:
        described["build_config"] = serialize(built_from)
    number = number_of(obj)
    if number is not None:
        described["shared_object_id"] = number
    return described


def _own_class(cls: type) -> tuple[str | None, str, str]:
    """Module, name and registered name of a class that nobody registered, as Keras writes them.

    The module is not imported by anybody: it tells a class named "Dense" from fanin's.
    """
    if _origin(cls) in _NOT_OWN or find_builtin(cls.__module__, cls.__name__) is not None:
        raise ValueError(
            f"Cannot save an object of class {cls.__name__}: it is not known to files. Use a class of your own with "
            "get_config()."
        )
    module = None if cls.__module__ == "__main__" else cls.__module__
    return module, cls.__name__, _own_name(cls, cls.__name__)


def _origin(obj: Any) -> str:
    return str(getattr(obj, "__module__", None)).split(".")[0]


def _own_name(obj: Any, name: str) -> str:
    """The name of what nobody registered: that in the scope, else its own. ValueError if two are written under one."""
    found = name_in_scope(obj, name) or name
    if not claim_name(found, obj):
        raise ValueError(
            f"Cannot save two classes or functions that are both named {found!r}: a file could not tell them apart. "
            "Decorate them with @fanin.saving.register_keras_serializable(), under different names."
        )
    return found


def _serialize_function(obj: Any) -> Json:
    found, place = get_registered_name(obj), place_of(obj)
    if found is None:
        found = place[1] if place is not None else _own_function(obj)
    return {"module": "builtins", "class_name": "function", "config": found, "registered_name": "function"}


def _own_function(obj: Any) -> str:
    """The name of a function that nobody registered. ValueError where a file could not name it."""
    name = getattr(obj, "__name__", None)
    if name_in_scope(obj, str(name)) is None:
        if name == "<lambda>":
            raise ValueError(
                "Cannot save a lambda: a file would have to carry its code, and no loader could trust it. "
                "Write a function and decorate it with @fanin.saving.register_keras_serializable()."
            )
        if name is None:
            raise ValueError(
                f"Cannot save {_brief(obj)}: it has no get_config(), so a file could not say how to make it again."
            )
        if not inspect.isfunction(obj) or _origin(obj) in _NOT_OWN:
            raise ValueError(
                f"Cannot save {name!r}: it is not known to files, and neither a function of your own nor an object "
                "with get_config(). Write a function that calls it."
            )
    found = _own_name(obj, str(name))
    if ">" not in found and find_builtin_function(found) is not None:
        raise ValueError(
            f"Cannot save your function {found!r}: fanin has one of that name, which a file would mean. Rename "
            "it, or decorate it with @fanin.saving.register_keras_serializable()."
        )
    return found


def _brief(obj: Any) -> str:
    """repr, cut short."""
    shown = repr(obj)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."
