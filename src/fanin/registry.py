"""Names for objects, both ways: identifier -> object, and object <-> plain JSON in Keras's form.

A `Family` is one kind of named things (activations, initializers, ...). It holds a table of names, which is also the
allowlist for files: nothing is ever imported by a name that a file gives. A user's own class or function becomes part
of the tables by `register_keras_serializable`, or for one load by `custom_objects=`. One that is in no table is written
under its own name, as Keras does, and found again by `custom_objects`.
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

_NOT_OWN = ("fanin", "torch")  # packages whose classes and functions are in a table or in no file
_builtin: dict[tuple[str, str], Any] = {("keras", "DTypePolicy"): DTypePolicy}
_places: dict[Any, tuple[str, str]] = {DTypePolicy: ("keras", "DTypePolicy")}
_registered: dict[str, Any] = {}


class _Scope(threading.local):
    objects: Mapping[str, Any] = {}
    numbers: Mapping[int, int] = {}  # id of an object that is written several times -> its number
    shared: dict[int, Any] | None = None  # number -> module that was read
    written: dict[str, Any] | None = None  # name -> class or function of one's own that was written under it


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
    """Inside the block, names in `objects` are found when configs are read, and stand for their objects in what is
    written. For this thread only."""
    previous = _scope.objects
    _scope.objects = {**previous, **(objects or {})}
    try:
        yield
    finally:
        _scope.objects = previous


@contextmanager
def sharing(objects: Iterable[Any] = ()) -> Iterator[dict[str, Any]]:
    """Inside the block, modules that a config holds several times stay one: they have a number. Names of classes and
    functions that nobody registered stand for one each. For this thread only.

    Args:
        objects: what gets a number when it is written, Keras's `shared_object_id`. Reading finds them by it.

    Yields a dict that comes to hold those classes and functions by their names, as `custom_objects` does.
    """
    previous = _scope.numbers, _scope.shared, _scope.written
    _scope.numbers, _scope.shared = {id(obj): number for number, obj in enumerate(objects, 1)}, {}
    written: dict[str, Any] = {}
    _scope.written = written
    try:
        yield written
    finally:
        _scope.numbers, _scope.shared, _scope.written = previous


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
        """Enter a class or a function under its name, and under `aliases`; a class under its snake_case too, unless
        that is the name of a function.

        `module` is the Keras module that its JSON names, if not the family's.
        """
        name = cast(Any, obj).__name__
        self._table[name] = obj
        if inspect.isclass(obj) and not inspect.isfunction(self._table.get(snake_case(name))):
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
        own = name if get_registered_object(name) is not None else None  # which stood for Keras's, too
        return {"registered_name": own, **config, "module": module, "class_name": name}


# --- JSON ---------------------------------------------------------------------------------------------------


def serialize(obj: Any) -> Any:
    """Plain JSON data for a value of a config, in the form that Keras writes.

    Numbers, strings, lists and dicts stay; an object becomes {"module", "class_name", "config", "registered_name"}, and
    so do the objects in its config. Classes and functions that nobody registered are written under the name that they
    have in a `custom_object_scope`, else under their own, by which `custom_objects` finds them. Raises ValueError, with
    the way out, for a lambda, for what has no `get_config`, and for names that fanin's own objects have.
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
    registered, place = get_registered_name(cls), _places.get(cls)
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
    if id(obj) in _scope.numbers:
        described["shared_object_id"] = _scope.numbers[id(obj)]
    return described


def _own_class(cls: type) -> tuple[str | None, str, str]:
    """Module, name and registered name of a class that nobody registered, as Keras writes them.

    The module is not imported by anybody: it tells a class named "Dense" from fanin's.
    """
    if _origin(cls) in _NOT_OWN or _of_fanin(cls.__module__, cls.__name__) is not None:
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
    found = name
    if _scope.objects.get(name) is not obj:
        found = next((key for key, value in _scope.objects.items() if value is obj), name)
    if _scope.written is not None and _scope.written.setdefault(found, obj) is not obj:
        raise ValueError(
            f"Cannot save two classes or functions that are both named {found!r}: a file could not tell them apart. "
            "Decorate them with @fanin.saving.register_keras_serializable(), under different names."
        )
    return found


def _place(obj: Any) -> tuple[str, str] | None:
    try:
        return _places.get(obj)
    except TypeError:  # unhashable, so no table holds it
        return None


def _serialize_function(obj: Any) -> Json:
    name = getattr(obj, "__name__", None)
    found = get_registered_name(obj)
    place = _place(obj)
    if found is None and place is not None:
        found = place[1]
    if found is None:
        in_scope = any(value is obj for value in _scope.objects.values())
        if name == "<lambda>" and not in_scope:
            raise ValueError(
                "Cannot save a lambda: a file would have to carry its code, and no loader could trust it. "
                "Write a function and decorate it with @fanin.saving.register_keras_serializable()."
            )
        if name is None and not in_scope:
            raise ValueError(
                f"Cannot save {_brief(obj)}: it has no get_config(), so a file could not say how to make it again."
            )
        if not in_scope and (not inspect.isfunction(obj) or _origin(obj) in _NOT_OWN):
            raise ValueError(
                f"Cannot save {name!r}: it is not known to files, and neither a function of your own nor an object "
                "with get_config(). Write a function that calls it."
            )
        found = _own_name(obj, str(name))
        if ">" not in found and _function_of_fanin(found) is not None:
            raise ValueError(
                f"Cannot save your function {found!r}: fanin has one of that name, which a file would mean. Rename "
                "it, or decorate it with @fanin.saving.register_keras_serializable()."
            )
    return {"module": "builtins", "class_name": "function", "config": found, "registered_name": "function"}


def _brief(obj: Any) -> str:
    """repr, cut short."""
    shown = repr(obj)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."


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
    inner = config["config"]
    inner = dict(inner) if isinstance(inner, Mapping) else inner  # Keras's guides write into it
    made = found.from_config(inner) if hasattr(found, "from_config") else found(**inner)
    if config.get("build_config") and hasattr(made, "build_from_config"):
        made.build_from_config(config["build_config"])
    if _scope.shared is not None and isinstance(number, int) and isinstance(made, torch.nn.Module):
        _scope.shared[number] = made
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
    if name == "function":
        name = registered = config["config"]
        if not isinstance(name, str):
            raise MismatchError(
                "This config holds the code of a function (a lambda); fanin never runs code from a file."
            )
    known_here = _of_fanin(module, name) if config["class_name"] != "function" else None
    # As in Keras: what a file says is fanin's own is not exchanged for a class of the same name.
    for candidate in (registered, None if known_here is not None and registered is None else name):
        if isinstance(candidate, str):
            found = get_registered_object(candidate)
            if found is not None:
                return found
    found = known_here if config["class_name"] != "function" else _function_of_fanin(name) or _of_fanin(module, name)
    if found is None:
        known = known_classes()
        raise MismatchError(
            f"Unknown class {name!r} (module {module!r}, registered name {registered!r}).{nearest(name, known)} "
            "Register your own with @fanin.saving.register_keras_serializable(), or pass custom_objects={...}."
        )
    return found


def _function_of_fanin(name: Any) -> Any:
    """The built-in function of that name, of whatever family."""
    return next((value for (_, entry), value in _builtin.items() if entry == name and inspect.isfunction(value)), None)


def _of_fanin(module: Any, name: Any) -> Any:
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


def known_classes() -> Iterable[str]:
    """The class names that files may use, without those of torch's functions and Keras's operations."""
    return {name for module, name in _builtin if re.match(r"keras\.(?!src\.ops)|keras$", module)} | set(_registered)
