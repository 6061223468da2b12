"""The user's own classes and functions: registered, for all threads, or in a scope, for one."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

Named = TypeVar("Named")

_registered: dict[str, Any] = {}


class _Scope(threading.local):
    objects: Mapping[str, Any] = {}


_scope = _Scope()


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable[[Named], Named]:
    """Decorator: let a class (with `get_config`) or a function be saved, and found again, as "package>name".

    >>> @register_keras_serializable()
    ... def double(x):
    ...     return 2 * x
    >>> get_registered_name(double)
    'Custom>double'
    """

    def register(obj: Named) -> Named:
        if inspect.isclass(obj) and not hasattr(obj, "get_config"):
            raise ValueError(f"Cannot register class {obj.__name__}: it has no get_config() method.")
        if not callable(obj):
            raise ValueError(f"Only a class or a function can be registered, found {obj!r}.")
        full = f"{package}>{name or getattr(obj, '__name__', type(obj).__name__)}"
        _registered[full] = obj
        return obj

    return register


def get_registered_name(obj: Any) -> str | None:
    """The name under which a class or function was registered last, "package>name", or None."""
    return next((name for name, found in reversed(list(_registered.items())) if found is obj), None)


def get_custom_objects() -> dict[str, Any]:
    """The table itself of what is registered: name -> class or function, for all threads.

    What is put into it is found when files are read and is saved under its name; what is taken out is known no more.

    >>> from fanin.registry import deserialize, serialize
    >>> def double(x):
    ...     return 2 * x
    >>> get_custom_objects()["double"] = double
    >>> deserialize(serialize(double)) is double
    True
    >>> get_custom_objects().pop("double") is double
    True
    """
    return _registered


def get_registered_object(name: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The class or function of that "package>name" or plain name, or None."""
    for table in (custom_objects or {}, _scope.objects, _registered):
        if name in table:
            return table[name]
    return None


@contextmanager
def custom_object_scope(custom_objects: Mapping[str, Any] | None) -> Iterator[None]:
    """Inside the block, the names of `custom_objects` are found when configs are read, and stand for their objects in
    what is written. For this thread only."""
    previous = _scope.objects
    _scope.objects = {**previous, **(custom_objects or {})}
    try:
        yield
    finally:
        _scope.objects = previous


def name_in_scope(obj: Any, preferred: str) -> str | None:
    """The name, of several the `preferred` one, that stands for `obj` in a `custom_object_scope`; None outside."""
    if _scope.objects.get(preferred) is obj:
        return preferred
    return next((name for name, found in _scope.objects.items() if found is obj), None)
