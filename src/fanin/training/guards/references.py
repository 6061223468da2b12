"""What the user's code reads besides its arguments: global variables, closures, and attributes of objects.

A program has all of that baked in. Only what calls can reach counts: the names in `forward`, in the functions and
methods that it names, and so on; not a list of losses that the training loop keeps in a module.
"""

from __future__ import annotations

import dis
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache, partial
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from torch import nn

from fanin.training.guards.container_guard import Binding

# The code of these packages is not the user's, and is not followed.
_LIBRARIES = {"fanin", "torch", "numpy", *sys.stdlib_module_names}
_ENTRY_POINTS = {"forward", "call", "__call__"}
_REFLECTION = {
    "getattr",
    "hasattr",
    "vars",
    "eval",
    "exec",
    "attrgetter",
}  # functions that read attributes by any name
# Methods that calls do not run, even if the user's class defines them.
_NOT_IN_CALLS = {
    *("__init__", "__repr__", "__str__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__"),
    *("__copy__", "__deepcopy__", "train", "eval", "extra_repr", "state_dict", "load_state_dict", "parameters"),
    *("named_parameters", "to", "get_config", "from_config", "build", "compile", "fit", "summary", "requires_grad_"),
}
Cell = tuple[CellType, str, Any]  # a variable of a closure, its name, and its value


def is_user_code(one: Any) -> bool:
    """Whether a class or a function is the user's, by its package; generated code has none."""
    package = str(getattr(one, "__module__", None) or "").partition(".")[0]
    return bool(package) and package not in _LIBRARIES


class References:
    """What calls of some objects read.

    Args:
        objects: modules, losses, functions, whatever is called.

    Attributes:
        bindings: global variables, and attributes of objects that variables hold; no modules, classes and functions,
            which are hardly ever reassigned.
        cells: variables of closures, likewise.
    """

    def __init__(self, objects: Iterable[Any]):
        self._bindings: dict[tuple[int, str], Binding] = {}
        self._cells: dict[int, Cell] = {}
        self._names: set[str] = set()
        self._reads_any_name = False
        self._methods: dict[str, list[FunctionType]] = {}  # by name: methods that no followed code has named yet
        waiting, known = list(self._entry_points(objects)), set[int]()
        while waiting:
            function = waiting.pop()
            if id(function) not in known:
                known.add(id(function))
                waiting += self._follow(function)
        values = [binding[2] for binding in self._bindings.values()] + [cell[2] for cell in self._cells.values()]
        for one in filter(_has_options, values):
            own = attributes_of(one)
            self._bindings |= {(id(own), name): (own, name, own[name]) for name in filter(self.is_named, own)}
        self.bindings, self.cells = list(self._bindings.values()), list(self._cells.values())

    def reads(self, one: Any, name: str) -> bool:
        """Whether calls may read this attribute of an object."""
        kind = type(one)
        if not is_user_code(kind) or self.is_named(name):
            return True
        # Library code of the object, such as Dense.call in a class derived from Dense: all that it names counts.
        return any(name in _names_in_class(base) for base in kind.__mro__ if not is_user_code(base))

    def is_named(self, name: str) -> bool:
        """Whether the user's code names an attribute, or may read any."""
        return self._reads_any_name or name in self._names

    def _entry_points(self, objects: Iterable[Any]) -> Iterator[FunctionType]:
        """The functions that calls of these objects run first. Their other methods are followed once they are named."""
        seen: set[int] = set()
        for one in _unwrapped(objects):
            if issubclass(type(one), FunctionType):
                if is_user_code(one):
                    yield one
                continue
            bases = [base for base in type(one).__mro__ if not is_user_code(base)]
            for kind in type(one).__mro__:
                if not is_user_code(kind) or id(kind) in seen:
                    continue
                seen.add(id(kind))
                for name, function in _functions_in(kind):
                    by_syntax = name[:2] == name[-2:] == "__"  # x[0], len(x), x * y
                    is_known = by_syntax or name in _ENTRY_POINTS or any(name in vars(base) for base in bases)
                    if is_known and name not in _NOT_IN_CALLS:
                        yield function
                    else:
                        self._methods.setdefault(name, []).append(function)

    def _follow(self, function: FunctionType) -> list[FunctionType]:
        """Record what a function reads; returns the user's functions that it names."""
        new = _names(function.__code__) - self._names
        self._names |= new
        self._reads_any_name |= not _globals(function.__code__).isdisjoint(_REFLECTION) or "__dict__" in new
        found = [*self._read_globals(function), *self._read_closure(function)]
        further = list(self._entry_points(one for one in found if is_user_code(one) or type(one) is partial))
        return further + [method for name in new for method in self._methods.pop(name, ())]

    def _read_globals(self, function: FunctionType) -> Iterator[Any]:
        own = function.__globals__
        for name in _globals(function.__code__):
            if name in own:
                yield own[name]
                if _is_data(own[name]):
                    self._bindings[id(own), name] = own, name, own[name]

    def _read_closure(self, function: FunctionType) -> Iterator[Any]:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            yield value
            if _is_data(value):
                self._cells[id(cell)] = cell, name, value


def attributes_of(one: Any) -> dict[str, Any]:
    """The attributes that an object keeps in a dict; none where it has no dict, or does not show it."""
    try:
        own = object.__getattribute__(one, "__dict__")
    except Exception:  # whatever a property of the user's raises
        return {}
    return own if type(own) is dict else {}


def _unwrapped(objects: Iterable[Any]) -> Iterator[Any]:
    """Functions in place of their partials, and a method's function and object in place of the method."""
    waiting = list(objects)
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if kind is partial:
            waiting += [one.func, *one.args, *one.keywords.values()]
        elif kind is MethodType:
            waiting += [one.__func__, one.__self__]
        elif not issubclass(kind, type):
            yield one


def holds_options(value: Any) -> bool:
    """Whether an object is of a class of the user's, or a namespace of options."""
    kind = type(value)
    return is_user_code(kind) or issubclass(kind, (Namespace, SimpleNamespace))


def _functions_in(kind: type) -> Iterator[tuple[str, FunctionType]]:
    """The methods and properties that a class itself defines, by name."""
    for name, one in vars(kind).items():
        if type(one) is property:
            one = one.fget
        elif type(one) in (staticmethod, classmethod):
            one = one.__func__
        elif type(one) is cached_property:
            one = one.func
        if type(one) is FunctionType:
            yield name, one


@lru_cache(1024)
def _names_in_class(kind: type) -> frozenset[str]:
    return frozenset().union(*(_names(function.__code__) for _, function in _functions_in(kind)))


@lru_cache(1024)
def _globals(code: CodeType) -> frozenset[str]:
    """The names of global variables that code reads or writes, the functions inside it included."""
    found = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "STORE_GLOBAL")}
    return frozenset(found).union(*(_globals(one) for one in code.co_consts if isinstance(one, CodeType)))


@lru_cache(1024)
def _names(code: CodeType) -> frozenset[str]:
    """All names in code, of attributes and global variables, the functions inside it included."""
    return frozenset(code.co_names).union(*(_names(one) for one in code.co_consts if isinstance(one, CodeType)))


def _is_data(value: Any) -> bool:
    return not issubclass(type(value), (ModuleType, type, FunctionType, BuiltinFunctionType))


def _has_options(value: Any) -> bool:
    """As `holds_options`, without modules, which have too many attributes to compare."""
    return holds_options(value) and not issubclass(type(value), nn.Module)
