"""What code of one's own reads beside its arguments: global variables, closures, and attributes of its objects.

A program holds all of that. Only what calls can reach counts: the names in `forward`, in the functions and methods that
it names, and so on; a list of losses that the training loop keeps in a module does not.
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

from fanin.training.guards.container_guard import Place

# Code of these packages reads no variable that changes.
_KNOWN_CODE = {"fanin", "torch", "numpy", *sys.stdlib_module_names}
_CALLS = {"forward", "call", "__call__"}
_BY_ANY_NAME = {
    "getattr",
    "hasattr",
    "vars",
    "eval",
    "exec",
    "attrgetter",
}  # functions that read attributes by any name
# Methods that calls do not run, also where a class has its own.
_BESIDE_CALLS = {
    *("__init__", "__repr__", "__str__", "__getstate__", "__setstate__", "__reduce__", "__reduce_ex__"),
    *("__copy__", "__deepcopy__", "train", "eval", "extra_repr", "state_dict", "load_state_dict", "parameters"),
    *("named_parameters", "to", "get_config", "from_config", "build", "compile", "fit", "summary", "requires_grad_"),
}
Cell = tuple[CellType, str, Any]  # a variable of a closure, its name, and its value


def is_own(one: Any) -> bool:
    """Whether a class or a function is of one's own code, as far as its package tells; what was generated has none."""
    package = str(getattr(one, "__module__", None) or "").partition(".")[0]
    return bool(package) and package not in _KNOWN_CODE


class References:
    """What calls of some objects read.

    Args:
        objects: modules, losses, functions, whatever is called.

    Attributes:
        places: global variables, and attributes of objects that variables hold. Modules, classes and functions are left
            out: one does not assign others.
        cells: variables of closures, likewise.
    """

    def __init__(self, objects: Iterable[Any]):
        self._places: dict[tuple[int, str], Place] = {}
        self._cells: dict[int, Cell] = {}
        self._names: set[str] = set()
        self._reads_all = False
        self._methods: dict[str, list[FunctionType]] = {}  # those that no call has named yet
        waiting, known = list(self._entries(objects)), set[int]()
        while waiting:
            function = waiting.pop()
            if id(function) not in known:
                known.add(id(function))
                waiting += self._follow(function)
        held = [place[2] for place in self._places.values()] + [cell[2] for cell in self._cells.values()]
        for one in filter(_has_options, held):
            own = attributes_of(one)
            self._places |= {(id(own), name): (own, name, own[name]) for name in filter(self.is_named, own)}
        self.places, self.cells = list(self._places.values()), list(self._cells.values())

    def reads(self, one: Any, name: str) -> bool:
        """Whether calls may read this attribute of an object."""
        kind = type(one)
        if not is_own(kind) or self.is_named(name):
            return True
        # The library's part of the object, such as Dense.call in a class derived from Dense, is not followed.
        return any(name in _names_in_class(base) for base in kind.__mro__ if not is_own(base))

    def is_named(self, name: str) -> bool:
        """Whether code of one's own names an attribute, or may read any."""
        return self._reads_all or name in self._names

    def _entries(self, objects: Iterable[Any]) -> Iterator[FunctionType]:
        """The functions that a call of these objects runs first. Their other methods wait to be named."""
        seen: set[int] = set()
        for one in _unwrapped(objects):
            if issubclass(type(one), FunctionType):
                if is_own(one):
                    yield one
                continue
            bases = [base for base in type(one).__mro__ if not is_own(base)]
            for kind in type(one).__mro__:
                if not is_own(kind) or id(kind) in seen:
                    continue
                seen.add(id(kind))
                for name, function in _functions_in(kind):
                    by_syntax = name[:2] == name[-2:] == "__"  # x[0], len(x), x * y
                    is_known = by_syntax or name in _CALLS or any(name in vars(base) for base in bases)
                    if is_known and name not in _BESIDE_CALLS:
                        yield function
                    else:
                        self._methods.setdefault(name, []).append(function)

    def _follow(self, function: FunctionType) -> list[FunctionType]:
        """Note what a function reads; returns the functions of one's own that it names."""
        new = _names(function.__code__) - self._names
        self._names |= new
        self._reads_all |= not _globals(function.__code__).isdisjoint(_BY_ANY_NAME) or "__dict__" in new
        found = [*self._read_globals(function), *self._read_closure(function)]
        further = list(self._entries(one for one in found if is_own(one) or type(one) is partial))
        return further + [method for name in new for method in self._methods.pop(name, ())]

    def _read_globals(self, function: FunctionType) -> Iterator[Any]:
        own = function.__globals__
        for name in _globals(function.__code__):
            if name in own:
                yield own[name]
                if _is_data(own[name]):
                    self._places[id(own), name] = own, name, own[name]

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
    """Whether an object is of one's own class, or made to hold options."""
    kind = type(value)
    return is_own(kind) or issubclass(kind, (Namespace, SimpleNamespace))


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
    """Whether an object is of one's own class, or made to hold options; modules have too many attributes to compare."""
    return holds_options(value) and not issubclass(type(value), nn.Module)
