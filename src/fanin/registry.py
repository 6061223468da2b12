"""Names for objects, both ways: identifier -> object, and object <-> plain JSON in Keras's form.

A `Family` is one kind of named things (activations, initializers, ...). It holds a table of names, which is also the
allowlist for files: nothing is ever imported by a name that a file gives. A user's own class or function becomes part
of the tables by `register_keras_serializable`, or for one load by `custom_objects=`.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch

from fanin.dtypes import DTypePolicy, as_dtype, dtype_name
from fanin.errors import MismatchError, nearest

T = TypeVar("T")
Named = TypeVar("Named")
Json = dict[str, Any]

_builtin: dict[tuple[str, str], Any] = {("keras", "DTypePolicy"): DTypePolicy}
_places: dict[Any, tuple[str, str]] = {DTypePolicy: ("keras", "DTypePolicy")}
_registered: dict[str, Any] = {}


class _Scope(threading.local):
    objects: Mapping[str, Any] = {}
    numbers: Mapping[int, int] = {}  # id of an object that is written several times -> its number
    shared: dict[int, Any] | None = None  # number -> module that was read


_scope = _Scope()


def snake_case(name: str) -> str:
    """ "GlorotUniform" -> "glorot_uniform", "L1L2" -> "l1l2", "LeakyReLU" -> "leaky_re_lu", as Keras names things."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


# --- the user's own objects ---------------------------------------------------------------------------------


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
def custom_object_scope(objects: Mapping[str, Any] | None) -> Iterator[None]:
    """Inside the block, names in `objects` are found when configs are read. For this thread only."""
    previous = _scope.objects
    _scope.objects = {**previous, **(objects or {})}
    try:
        yield
    finally:
        _scope.objects = previous


@contextmanager
def sharing(objects: Iterable[Any] = ()) -> Iterator[None]:
    """Inside the block, modules that a config holds several times stay one: they have a number. For this thread only.

    Args:
        objects: what gets a number when it is written, Keras's `shared_object_id`. Reading finds them by it.
    """
    previous = _scope.numbers, _scope.shared
    _scope.numbers, _scope.shared = {id(obj): number for number, obj in enumerate(objects, 1)}, {}
    try:
        yield
    finally:
        _scope.numbers, _scope.shared = previous


# --- families -----------------------------------------------------------------------------------------------


class Family(Generic[T]):
    """One kind of named objects: a table of names, and the rules by which an identifier becomes an object.

    Args:
        kind: what one of them is called in messages: "initializer".
        module: the Keras module its JSON names: "keras.initializers".
        base: the class that instances must have; None where any callable will do.
    """

    def __init__(self, kind: str, module: str, base: type | None = None):
        self.kind = kind
        self.module = module
        self.base = base
        self._table: dict[str, Any] = {}

    def add(self, obj: Named, *aliases: str, module: str | None = None) -> Named:
        """Enter a class (under its name and snake_case) or a function (under its name), and under `aliases`.

        `module` is the Keras module that its JSON names, if not the family's.
        """
        name = cast(Any, obj).__name__
        self._table[name] = obj
        if inspect.isclass(obj):
            self._table[snake_case(name)] = obj
        for alias in aliases:
            self._table[alias] = obj
        _builtin[module or self.module, name] = obj
        _places[obj] = (module or self.module, name)
        return obj

    def entry(self, *aliases: str, module: str | None = None) -> Callable[[Named], Named]:
        """`add` as a decorator with aliases."""
        return lambda obj: self.add(obj, *aliases, module=module)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._table)

    def lookup(self, name: str) -> Any:
        """The class or function under `name`: the user's own, then the table. Else a ValueError with near names."""
        found = get_registered_object(name)
        if found is None:
            found = self._table.get(name)
        if found is None:
            raise ValueError(f"Unknown {self.kind} {name!r}.{nearest(name, self._table)}")
        return found

    def get(self, identifier: Any) -> T | None:
        """The object that `identifier` means: None, a name, a class, an instance, a config dict or a callable.

        Raises ValueError for an unknown name, TypeError for what cannot be an object of this family.
        """
        if identifier is None:
            return None
        found = identifier
        if isinstance(identifier, str):
            found = self.lookup(identifier)
        elif isinstance(identifier, Mapping):
            found = self.deserialize(identifier)
        if inspect.isclass(found):
            found = found()
        return self.check(found, identifier)

    def check(self, found: Any, identifier: Any) -> T:
        """`found` if it can serve in this family, else a TypeError that shows the identifier."""
        if callable(found) or (self.base is not None and isinstance(found, self.base)):
            return cast(T, found)
        raise TypeError(
            f"Could not interpret {self.kind} identifier {identifier!r}: expected a name, class, config or callable."
        )

    def serialize(self, obj: Any) -> Any:
        """The JSON of one of this family's objects: a plain name for a built-in function, else Keras's object form."""
        if obj is None:
            return None
        place = None if inspect.isclass(obj) else _place(obj)
        return place[1] if place is not None and place[0] == self.module else serialize(obj)

    def deserialize(self, config: Any, custom_objects: Mapping[str, Any] | None = None) -> T | None:
        """The object that `serialize` described."""
        with custom_object_scope(custom_objects):
            if config is None:
                return None
            if isinstance(config, str):
                return self.get(config)
            return self.check(deserialize(self.with_module(config)), config)

    def with_module(self, config: Any) -> Any:
        """A config in Keras 2's form, which names no module, in Keras 3's; any other as it is."""
        if not isinstance(config, Mapping) or "module" in config or config.get("class_name") not in self._table:
            return config
        module, name = _places[self._table[config["class_name"]]]
        return {"registered_name": None, **config, "module": module, "class_name": name}


# --- JSON ---------------------------------------------------------------------------------------------------


def serialize(obj: Any) -> Any:
    """Plain JSON data for a value of a config, in the form that Keras writes.

    Numbers, strings, lists and dicts stay; an object becomes {"module", "class_name", "config", "registered_name"}.
    Raises ValueError, with the way out, for a lambda and for classes and functions that nobody registered.
    """
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    if isinstance(obj, np.generic):
        return obj.item()
    if isinstance(obj, (list, tuple)):
        return [serialize(item) for item in obj]
    if isinstance(obj, torch.dtype):
        return dtype_name(obj)
    if isinstance(obj, Mapping):
        return {str(key): serialize(value) for key, value in obj.items()}
    if isinstance(obj, slice):
        ends = {"start": obj.start, "stop": obj.stop, "step": obj.step}
        return {"class_name": "__slice__", "config": serialize(ends)}
    if obj is Ellipsis:
        return {"class_name": "__ellipsis__", "config": {}}
    if isinstance(obj, torch.Tensor):
        described = {"value": obj.detach().tolist(), "dtype": dtype_name(obj.dtype)}
        return {"class_name": "__tensor__", "config": described}
    if isinstance(obj, np.ndarray):
        return {"class_name": "__numpy__", "config": {"value": obj.tolist(), "dtype": obj.dtype.name}}
    if not inspect.isclass(obj) and hasattr(obj, "get_config"):
        return _serialize_instance(obj)
    return _serialize_function(obj)


def _serialize_instance(obj: Any) -> Json:
    cls = type(obj)
    registered = get_registered_name(cls)
    if registered is None and cls not in _places:
        raise ValueError(
            f"Cannot save {obj!r}: its class {cls.__name__} is not known to files. "
            "Decorate it with @fanin.saving.register_keras_serializable()."
        )
    module, name = (None, cls.__name__) if registered is not None else _places[cls]
    described = {"module": module, "class_name": name, "config": obj.get_config(), "registered_name": registered}
    built_from = obj.get_build_config() if hasattr(obj, "get_build_config") else None
    if built_from is not None:
        described["build_config"] = built_from
    if id(obj) in _scope.numbers:
        described["shared_object_id"] = _scope.numbers[id(obj)]
    return described


def _place(obj: Any) -> tuple[str, str] | None:
    try:
        return _places.get(obj)
    except TypeError:  # unhashable, so no table holds it
        return None


def _serialize_function(obj: Any) -> Json:
    name = getattr(obj, "__name__", type(obj).__name__)
    registered = get_registered_name(obj)
    if registered is not None:
        return {"module": "builtins", "class_name": "function", "config": registered, "registered_name": "function"}
    place = _place(obj)
    if place is not None:
        return {"module": "builtins", "class_name": "function", "config": place[1], "registered_name": "function"}
    if name == "<lambda>":
        raise ValueError(
            "Cannot save a lambda: a file would have to carry its code, and no loader could trust it. "
            "Write a function and decorate it with @fanin.saving.register_keras_serializable()."
        )
    raise ValueError(
        f"Cannot save {name!r}: it is not known to files. Decorate it with @fanin.saving.register_keras_serializable()."
    )


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The value that `serialize` described. Only registered and built-in names are found; nothing is imported.

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
    if config["class_name"] == "__numpy__":
        # Only known names of dtypes: in numpy's own language one could ask for gigabytes.
        kind = dtype_name(as_dtype(config["config"]["dtype"]))
        return np.asarray(config["config"]["value"], dtype=kind)
    if config["class_name"] == "__tensor__":
        return torch.tensor(config["config"]["value"], dtype=as_dtype(config["config"]["dtype"]))
    if config["class_name"] == "__slice__":
        return slice(*(_deserialize(config["config"][end]) for end in ("start", "stop", "step")))
    if config["class_name"] == "__ellipsis__":
        return Ellipsis
    number = config.get("shared_object_id")
    if _scope.shared and isinstance(number, int) and number in _scope.shared:
        return _scope.shared[number]
    found = find_class(config)
    if config["class_name"] == "function":
        return found
    made = found.from_config(config["config"]) if hasattr(found, "from_config") else found(**config["config"])
    if config.get("build_config") and hasattr(made, "build_from_config"):
        made.build_from_config(config["build_config"])
    if _scope.shared is not None and isinstance(number, int) and isinstance(made, torch.nn.Module):
        _scope.shared[number] = made
    return made


def find_class(config: Mapping[str, Any]) -> Any:
    """The class (or function) that an object config names, from the tables and never by import."""
    name, module, registered = config["class_name"], config.get("module"), config.get("registered_name")
    if name == "function":
        name = registered = config["config"]
        if not isinstance(name, str):
            raise MismatchError(
                "This config holds the code of a function (a lambda); fanin never runs code from a file."
            )
    for candidate in (registered, name):
        if isinstance(candidate, str):
            found = get_registered_object(candidate)
            if found is not None:
                return found
    if config["class_name"] == "function":
        for (_, entry), value in _builtin.items():
            if entry == name and inspect.isfunction(value):
                return value
    found = _builtin.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
    if found is None and isinstance(module, str) and module.startswith("keras.src."):
        found = _by_internal_path(module, name)
    if found is None:
        known = known_classes()
        raise MismatchError(
            f"Unknown class {name!r} (module {module!r}, registered name {registered!r}).{nearest(name, known)} "
            "Register your own with @fanin.saving.register_keras_serializable(), or pass custom_objects={...}."
        )
    return found


def _by_internal_path(module: str, name: str) -> Any:
    """Keras sometimes writes an internal path (`keras.src.optimizers.adam`): match its package and the class name."""
    parts = module.split(".")
    for (public, entry), value in _builtin.items():
        if entry == name and public.removeprefix("keras.") in parts:
            return value
    return None


def known_classes() -> Iterable[str]:
    """The class names that files may use, without those of torch's functions and Keras's operations."""
    return {name for module, name in _builtin if re.match(r"keras\.(?!src\.ops)|keras$", module)} | set(_registered)
