"""fanin's own classes and functions, each at its place: the module and the name that Keras's JSON has for it."""

from __future__ import annotations

import inspect
import re
from typing import Any

from fanin.dtypes import DTypePolicy

Place = tuple[str, str]

_builtin: dict[Place, Any] = {}
_places: dict[Any, Place] = {}


def enter(obj: Any, module: str, name: str) -> None:
    """Let `obj` be written as `name` of Keras's `module`, and found there."""
    _builtin[module, name] = obj
    _places[obj] = (module, name)


enter(DTypePolicy, "keras", "DTypePolicy")


def place_of(obj: Any) -> Place | None:
    """Keras's module and name for a class or function, or None."""
    try:
        return _places.get(obj)
    except TypeError:  # unhashable, so no table holds it
        return None


def find_builtin(module: Any, name: Any) -> Any:
    """What fanin has under a module and name of Keras's, or None."""
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    found = _builtin.get((module, name))
    return _by_internal_path(module, name) if found is None and module.startswith("keras.src.") else found


def _by_internal_path(module: str, name: str) -> Any:
    """Keras sometimes writes an internal path (`keras.src.optimizers.adam`): match its package and the class name."""
    parts = module.split(".")
    for (public, entry), value in _builtin.items():
        if entry == name and public.removeprefix("keras.") in parts:
            return value
    return None


def find_builtin_function(name: str) -> Any:
    """fanin's function of that name, of whatever module, or None."""
    return next((value for (_, entry), value in _builtin.items() if entry == name and inspect.isfunction(value)), None)


def builtin_classes() -> set[str]:
    """The names of classes that files may use, without those of torch's functions and Keras's operations."""
    return {name for module, name in _builtin if re.match(r"keras\.(?!src\.ops)|keras$", module)}
