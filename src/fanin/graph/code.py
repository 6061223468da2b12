"""From nodes to straight-line Python code: what a model runs.

::

    def run(image, age):
        v0 = dense(image)
        v1 = concatenate([v0, age])
        return dense_1(v1)

The layers are globals of the function, so a call costs what it costs in a plain loop over modules. A variable is used
again once its value is dead, so that memory is freed as early as in such a loop.
"""

from __future__ import annotations

import builtins
import keyword
import linecache
import math
import re
import types
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from fanin.graph.node import FunctionCall, Node
from fanin.graph.symbolic import SymbolicTensor, symbols_in

Key = tuple[int, int]


def compile_calls(
    name: str,
    inputs: Sequence[SymbolicTensor],
    nodes: Iterable[Node],
    outputs: Any,
    bind: Callable[[Any], Any] = lambda operation: operation,
) -> Callable[..., Any]:
    """A function of the values of `inputs`, in their order, that returns the values of `outputs`, in their structure.

    Args:
        name: what tracebacks call the code.
        inputs: where the code begins.
        nodes: the calls to run, each after those it depends on.
        outputs: a nested structure of symbolic tensors.
        bind: from a layer or recorded function to what is called in its place.

    `function.source` is its text.
    """
    return _Writer(inputs, list(nodes), outputs, bind).function(name)


class _Writer:
    """Writes the code line by line, and keeps track of which variable holds what, and until when."""

    def __init__(self, inputs: Sequence[SymbolicTensor], nodes: list[Node], outputs: Any, bind: Callable[[Any], Any]):
        self._globals: dict[str, Any] = {}
        self._called: dict[int, str] = {}
        self._variables: dict[Key, str] = {}
        self._free: list[str] = []
        self._made = 0
        self._bind = bind
        for symbol in inputs:
            self._variables[_key(symbol)] = self._new()
        parameters = list(self._variables.values())
        dies = _last_uses(nodes, keep=outputs)
        body: list[str] = []
        for number, node in enumerate(nodes):
            if node.input_tensors:
                call = f"{self._name_of(node.layer)}({self._arguments(node)})"
                self._release(dies[number])  # what this call is the last to read
                body.extend(self._assign(node, call))
                self._release(dies[number])  # what it returns and nobody reads
        body.append(f"return {self._text(outputs)}")
        self.source = "\n    ".join([f"def run({', '.join(parameters)}):", *body]) + "\n"

    def function(self, name: str) -> Callable[..., Any]:
        """The code, compiled."""
        file = f"<the calls of {name}, {id(self)}>"
        exec(compile(self.source, file, "exec"), self._globals)
        linecache.cache[file] = (len(self.source), None, self.source.splitlines(True), file)
        run: types.FunctionType = self._globals.pop("run")  # no cycle: a dropped model is freed at once
        weakref.finalize(run, linecache.cache.pop, file, None)
        run.source = self.source  # type: ignore[attr-defined]
        return run

    def _release(self, keys: list[Key]) -> None:
        self._free.extend(self._variables.pop(key) for key in keys if key in self._variables)

    def _new(self) -> str:
        if self._free:
            return self._free.pop()
        self._made += 1
        return f"v{self._made - 1}"

    def _assign(self, node: Node, call: str) -> list[str]:
        paths = node.paths
        names = []
        for index in range(node.returned):
            names.append(self._new())
            self._variables[id(node), index] = names[-1]
        if paths == [()]:
            return [f"{names[0]} = {call}"]
        steps = ["".join(f"[{step!r}]" for step in path) for path in paths]
        return [f"result = {call}", *(f"{name} = result{step}" for name, step in zip(names, steps, strict=True))]

    def _arguments(self, node: Node) -> str:
        for key in node.kwargs:  # a file may have brought it
            if not key.isidentifier() or keyword.iskeyword(key):
                raise ValueError(f"{node.layer.name!r} is called with {key!r}, which is no name of an argument.")
        near = self._variables[_key(node.input_tensors[0])]
        given = [self._text(value, near) for value in node.args]
        given += [f"{key}={self._text(value, near)}" for key, value in node.kwargs.items()]
        return ", ".join(given)

    def _text(self, value: Any, near: str = "") -> str:
        """An expression for an argument: symbols by their variables, small constants as they are, tensors on the device
        of the variable `near`."""
        if isinstance(value, SymbolicTensor):
            return self._variables[_key(value)]
        if value is None or isinstance(value, (bool, int, str)) or (type(value) is float and math.isfinite(value)):
            return repr(value)
        if type(value) is list:
            return f"[{', '.join(self._text(item, near) for item in value)}]"
        if type(value) is tuple:
            return f"({', '.join(self._text(item, near) for item in value)}{',' if len(value) == 1 else ''})"
        if type(value) is dict and all(isinstance(key, (str, int)) for key in value):
            return f"{{{', '.join(f'{key!r}: {self._text(item, near)}' for key, item in value.items())}}}"
        constant = self._global("constant", value)
        return f"{constant}.to({near}.device)" if isinstance(value, torch.Tensor) and near else constant

    def _name_of(self, operation: Any) -> str:
        if id(operation) not in self._called:
            value = operation.function if isinstance(operation, FunctionCall) else self._bind(operation)
            self._called[id(operation)] = self._global(operation.name, value)
        return self._called[id(operation)]

    def _global(self, name: str, value: Any) -> str:
        name = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not name.isidentifier() or keyword.iskeyword(name) or hasattr(builtins, name) or re.fullmatch(r"v\d+", name):
            name = f"call_{name}"
        count, free = 0, name
        while free in self._globals or free in ("run", "result"):
            count += 1
            free = f"{name}_{count}"
        self._globals[free] = value
        return free


def _last_uses(nodes: list[Node], keep: Any) -> list[list[Key]]:
    """For each node the values that nobody needs after it."""
    last: dict[Key, int] = {}
    for number, node in enumerate(nodes):
        last.update(((id(node), index), number) for index in range(node.returned))
        last.update((_key(symbol), number) for symbol in node.input_tensors)
    for symbol in symbols_in(keep):
        last.pop(_key(symbol), None)
    dies: list[list[Key]] = [[] for _ in nodes]
    for key, number in last.items():
        dies[number].append(key)
    return dies


def _key(symbol: SymbolicTensor) -> Key:
    return id(symbol.node), symbol.index
