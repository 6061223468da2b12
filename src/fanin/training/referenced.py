"""Global variables and closures that functions of one's own read: what they hold is frozen into a program, too."""

from __future__ import annotations

import dis
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)  # fmt: skip
from typing import Any

from fanin.training.contents import Place

# Code of these packages reads no variable that changes.
KNOWN_CODE = {"fanin", "torch", "numpy", *sys.stdlib_module_names}
Cell = tuple[CellType, str, Any]  # a variable of a closure, its name, and its value


def is_own(one: Any) -> bool:
    """Whether a class or a function is of one's own code, as far as its package tells."""
    return str(getattr(one, "__module__", "")).partition(".")[0] not in KNOWN_CODE


def functions_of(one: Any) -> Iterator[FunctionType]:
    """The functions of one's own that calls of an object may run: itself, or the methods of its class."""
    if isinstance(one, MethodType):
        yield from functions_of(one.__func__)
    elif isinstance(one, FunctionType):
        if is_own(one):
            yield one
    else:
        for kind in type(one).__mro__ if is_own(type(one)) else ():
            if is_own(kind):
                yield from (f for name, f in vars(kind).items() if isinstance(f, FunctionType) and name != "__init__")


class Referenced:
    """What functions, and those that they call, read beside their arguments.

    Modules, classes and functions are left out: one does not assign others.

    Attributes:
        places: global variables; and attributes of objects that variables hold, as far as the functions name them.
        cells: variables of closures.
    """

    def __init__(self, functions: Iterable[FunctionType]):
        self._places: dict[tuple[int, str], Place] = {}
        self._cells: dict[int, Cell] = {}
        names: set[str] = set()
        waiting, known = list(functions), set[int]()
        while waiting:
            function = waiting.pop()
            if id(function) not in known:
                known.add(id(function))
                names |= _names(function.__code__)
                found = [*self._read_globals(function), *self._read_closure(function)]
                waiting += [value for value in found if isinstance(value, FunctionType) and is_own(value)]
        for value in [place[2] for place in self._places.values()] + [cell[2] for cell in self._cells.values()]:
            own = vars(value) if _has_options(value) else {}
            self._places |= {(id(own), name): (own, name, one) for name, one in own.items() if name in names}
        self.places, self.cells = list(self._places.values()), list(self._cells.values())

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


@lru_cache(1024)
def _globals(code: CodeType) -> set[str]:
    """The names of global variables that code reads or writes, the functions inside it included."""
    found = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "STORE_GLOBAL")}
    return found.union(*(_globals(one) for one in code.co_consts if isinstance(one, CodeType)))


@lru_cache(1024)
def _names(code: CodeType) -> set[str]:
    """All names of attributes in code, the functions inside it included."""
    return set(code.co_names).union(*(_names(one) for one in code.co_consts if isinstance(one, CodeType)))


def _is_data(value: Any) -> bool:
    return not isinstance(value, (ModuleType, type, FunctionType, BuiltinFunctionType))


def _has_options(value: Any) -> bool:
    """Whether an object is of one's own class, or made to hold options."""
    return hasattr(value, "__dict__") and (is_own(type(value)) or isinstance(value, (Namespace, SimpleNamespace)))
