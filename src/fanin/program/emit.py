"""From a graph and a memory plan to one straight-line Python function.

Everything that does not change between runs is bound before the first: weights, planned memory, all views of them, and
constants. What is left is one line for each operation that computes something::

    def run(x, y, r0):
        addmm(bias, x, kernel, out=v3)
        relu_(v3)
        ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import aten, is_getitem, is_view, mutated_inputs, returned_input, storages_of, tensors_of
from fanin.program.input_views import InputViews
from fanin.program.memory import Plan, direct_results, view_of_arena
from fanin.program.numpy_lines import lines_of
from fanin.program.numpy_program import as_array
from fanin.program.numpy_warnings import NAMES, without_warnings
from fanin.program.out_variants import EMPTIES, out_call
from fanin.program.trace import Traced

_IN_PLACE: dict[Any, Callable[..., Any]] = {
    aten.relu.default: torch.relu_,
    aten.tanh.default: torch.tanh_,
    aten.sigmoid.default: torch.sigmoid_,
}
# In-place operations that torch offers as functions: shorter than through the overload.
_SHORT_IN_PLACE = {
    "add_": Tensor.add_,
    "mul_": Tensor.mul_,
    "sub_": Tensor.sub_,
    "copy_": Tensor.copy_,
    "scatter_add_": Tensor.scatter_add_,
}


class Emitter:
    """Generates the source of one program, and the objects that its names are bound to.

    Attributes:
        names: node -> its name in the source.
        values: node -> its tensor or other value, where it is the same in every run.
        bound: the global names of the source.
        lines: those of `run`.
        prepare_lines: those of `prepare`, which runs once before many runs.
        input_views: the lines of `view_inputs`.
        arena: planned memory.
    """

    def __init__(self, traced: Traced, plan: Plan):
        self.traced, self.plan = traced, plan
        self.names: dict[fx.Node, str] = {}
        self.values: dict[fx.Node, Any] = {}
        self.bound: dict[str, Any] = dict(NAMES)
        self.lines: list[str] = []
        self.prepare_lines: list[str] = []
        self.input_views = InputViews()
        self._results: dict[fx.Node, int] = {}
        self._arrays: dict[fx.Node, str] = {}  # node -> the name of the numpy array on its memory
        self._calls_numpy = False
        with torch.inference_mode():
            self.arena = torch.empty(plan.size, dtype=torch.uint8, device=plan.device)

    def functions(self) -> tuple[dict[str, Any], str]:
        """The functions of the program by name, and their source.

        `view_inputs`: inputs -> the inputs and views of them. `run`: (these, memory for the results) -> None.
        `prepare`, if there are prepared values: () -> None computes them.
        """
        graph = self.traced.graph
        outputs = self.traced.outputs
        self._results = direct_results(graph)
        arguments = [f"x{place}" for place in range(len(self.traced.inputs))]
        for node, argument in zip(self.traced.inputs, arguments, strict=True):
            self.names[node] = argument
        dead_after = _dead_after(graph, set(self._results))
        with torch.inference_mode():
            for node in graph.nodes:
                if node.op == "output":
                    break
                self._emit(node)
                for dead in dead_after.get(node, ()):  # local variables of `run` are named v...
                    if dead not in self.values and self.names.get(dead, "x")[0] == "v":
                        self.lines.append(f"del {self.names[dead]}")
        for place, node in enumerate(outputs):
            if node is not None and self._results.get(node) != place:
                self.lines.append(f"r{place}.copy_({self._name(node)})")
        views = self.input_views.read_by(self.lines)
        results = [f"r{place}" for place, node in enumerate(outputs) if node is not None]
        view_lines = [f"{name} = {expression}" for name, expression in views.items()]
        source = _function("view_inputs", arguments, [*view_lines, f"return [{', '.join([*arguments, *views])}]"])
        source += _function("prepare", [], self.prepare_lines) if self.prepare_lines else ""
        if self._calls_numpy:
            self.lines = without_warnings(self.lines)
        source += _function("run", [*arguments, *views, *results], self.lines)
        exec(compile(source, "<fanin program>", "exec"), self.bound)  # generated above, from operations and numbers
        # Popped, so that there is no cycle: a program that is dropped frees its memory at once.
        return {name: self.bound.pop(name) for name in ("view_inputs", "prepare", "run") if name in self.bound}, source

    # --- one node --------------------------------------------------------------------------------------------

    def _emit(self, node: fx.Node) -> None:
        if node in self.traced.static:
            value: Any = self.traced.static[node]
            self.values[node] = value.detach() if isinstance(value, Tensor) else value  # or a generator
        elif node.op == "placeholder":
            pass
        elif node.meta.get("constant") or (is_view(node) and self._is_known(node.args[0])):
            operation: Any = node.target
            self.values[node] = operation(*self._known(node.args), **self._known(node.kwargs))
        elif node.meta.get("packed"):
            name = self.names[node] = self._bind(None, node.name)  # in a layout that only its operation knows
            function = self._bind(node.target, _op_name(node))
            self.prepare_lines += [f"global {name}", f"{name} = {function}({self._arguments(node)})"]
        elif node.meta.get("prepared"):
            self._emit_prepared(node)
        elif node in self.plan.planned:
            self._emit_planned(node)
        elif node in self._results:
            self.names[node] = f"r{self._results[node]}"
            self._emit_out_call(node, [self.names[node]], self.lines)
        elif mutated_inputs(node) and (returned_input(node) is not None or not node.users):
            self._emit_mutation(node)
        elif is_view(node) and not is_getitem(node) and self._is_input_view(node.args[0]):
            self.names[node] = self.input_views.name(self._view_of_input(node))
        elif is_getitem(node) and self._is_known(node.args[0]):
            self.values[node] = self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        else:
            name = self.names[node] = f"v{len(self.names)}_"
            self.lines.append(f"{name} = {self._bind(node.target, _op_name(node))}({self._arguments(node)})")

    def _emit_planned(self, node: fx.Node) -> None:
        """The result is a view of the arena, which the operation writes into."""
        found = []
        for value, storage in zip(tensors_of(node.meta["val"]), storages_of(node), strict=True):
            found.append(view_of_arena(self.arena, self.plan.offset[storage], value))
        several = isinstance(node.meta["val"], (list, tuple))
        self.values[node] = tuple(found) if several else found[0]
        if node.target in EMPTIES:
            return
        source: Any = node.args[0] if node.args else None
        is_in_place = (
            node.target in _IN_PLACE
            and self._is_known(source)
            and self.values[source].data_ptr() == found[0].data_ptr()
        )
        if self._emit_numpy(node):
            return
        if is_in_place:
            self.lines.append(
                f"{self._bind(_IN_PLACE[node.target], _op_name(node) + '_')}({self._name(node)}){_shapes(node)}"
            )
            return
        names = (
            [self._bind(tensor, f"{node.name}_{i}") for i, tensor in enumerate(found)]
            if several
            else [self._name(node)]
        )
        self._emit_out_call(node, names, self.lines)

    def _emit_prepared(self, node: fx.Node) -> None:
        value = node.meta["val"]
        self.values[node] = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
        if out_call(node) is not None:
            self._emit_out_call(node, [self._name(node)], self.prepare_lines)
            return
        function = self._bind(node.target, _op_name(node))
        self.prepare_lines.append(f"{self._name(node)}.copy_({function}({self._arguments(node)})){_shapes(node)}")

    def _emit_out_call(self, node: fx.Node, results: list[str], lines: list[str]) -> None:
        call = out_call(node)
        assert call is not None
        if call.names == [""]:
            lines.append(f"{results[0]}.copy_({self._name(node.args[0])}){_shapes(node)}")
            return
        outs = ", ".join(f"{key}={name}" for key, name in zip(call.names, results, strict=True))
        arguments = self._arguments(node, _axes(node) if call.reduces_all else None)
        lines.append(
            f"{self._bind(call.function, _op_name(node))}({arguments}{', ' if arguments else ''}{outs}){_shapes(node)}"
        )

    def _emit_numpy(self, node: fx.Node) -> bool:
        """An operation marked `by_numpy`; False where the memory of a value is not known before the run."""
        lines = lines_of(node, self._array, self._bind) if node.meta.get("by_numpy") else None
        if lines is None:
            return False
        self._calls_numpy = True
        self.lines += [lines[0] + _shapes(node), *lines[1:]]
        return True

    def _view_of_input(self, node: fx.Node) -> str:
        """The expression of a view of an input."""
        if (strided := self.input_views.strided(node)) is not None:
            base, shape, strides = strided
            return f"{self._bind(torch.as_strided, 'as_strided')}({self.names[base]}, {shape}, {strides})"
        return f"{self._bind(node.target, _op_name(node))}({self._arguments(node)})"

    def _array(self, node: Any) -> str | None:
        """The name of a value as a numpy array, made by `view_inputs` for inputs; None if its memory is unknown."""
        if node not in self._arrays:
            if self._is_known(node):
                self._arrays[node] = self._bind(self.values[node].numpy(), f"{node.name}_array")
            elif self._is_input_view(node):
                made = f"{self._bind(as_array, 'as_array')}({self.names[node]})"
                self._arrays[node] = self.input_views.name(made)
        return self._arrays.get(node)

    def _emit_mutation(self, node: fx.Node) -> None:
        """An in-place operation: its result is its first input."""
        if not node.users and self._emit_numpy(node):
            return
        targets = mutated_inputs(node)
        function = _SHORT_IN_PLACE.get(_op_name(node), node.target)
        self.lines.append(f"{self._bind(function, _op_name(node))}({self._arguments(node)})")
        if not node.users:
            return
        if self._is_known(targets[0]):
            self.values[node] = self._value(targets[0])
        else:
            self.names[node] = self.names[targets[0]]

    # --- names and values ------------------------------------------------------------------------------------

    def _is_input_view(self, node: Any) -> bool:
        """An input, or a view of one."""
        return isinstance(node, fx.Node) and self.names.get(node, "")[:1] in ("x", "w")

    def _is_known(self, node: Any) -> bool:
        return isinstance(node, fx.Node) and node in self.values

    def _value(self, node: fx.Node) -> Any:
        return self.values[node]

    def _known(self, value: Any) -> Any:
        return fx.map_arg(value, self._value)

    def _name(self, node: Any) -> str:
        if node in self.names:
            return self.names[node]
        name = self.names[node] = self._bind(self.values[node], node.name)
        return name

    def _bind(self, value: Any, title: str) -> str:
        """Bind a value to a global name, the same for the same object."""
        value = getattr(value, "_op", value)  # the C++ function of an overload, without its Python wrapper
        name, number = title, 1
        while name in self.bound and self.bound[name] is not value:
            name, number = f"{title}_{number}", number + 1
        self.bound[name] = value
        return name

    def _arguments(self, node: fx.Node, further: Any = None) -> str:
        parts = [self._text(value) for value in (*node.args, *([] if further is None else [further]))]
        parts += [f"{name}={self._text(value)}" for name, value in node.kwargs.items()]
        return ", ".join(parts)

    def _text(self, value: Any) -> str:
        """An argument as source: a name, a number, a list of such; other objects are bound."""
        if isinstance(value, fx.Node):
            return self._name(value)
        if isinstance(value, (list, tuple)):
            inner = [self._text(item) for item in value]
            if inner and all(name.isidentifier() for name in inner) and all(self._is_known(item) for item in value):
                return self._bind_list([self.values[item] for item in value])
            return f"[{', '.join(inner)}]"
        if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and abs(value) < float("inf")):
            return repr(value)
        return self._bind(value, "given")

    def _bind_list(self, tensors: list[Tensor]) -> str:
        return self._bind(tensors, f"list_{len(self.bound)}")


def _axes(node: fx.Node) -> list[int]:
    first: Any = node.args[0]
    return list(range(first.meta["val"].dim()))


def _shapes(node: fx.Node) -> str:
    """The shapes of a node's results, as a comment."""
    values = tensors_of(node.meta.get("val"))
    found = [f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}" for value in values]
    return f"  # {', '.join(found)}" if found else ""


def _function(name: str, arguments: list[str], lines: list[str]) -> str:
    body = "\n    ".join(lines or ["pass"])
    return f"def {name}({', '.join(arguments)}):\n    {body}\n\n"


def _op_name(node: fx.Node) -> str:
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", "call"))


def _dead_after(graph: fx.Graph, results: set[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Node -> the values that are dead after it."""
    found: dict[fx.Node, list[fx.Node]] = {}
    live: set[fx.Node] = set(results)  # going backwards: values with a later reader
    for node in reversed(graph.nodes):
        for source in map(_in_place_source, node.all_input_nodes):
            if source not in live:
                live.add(source)
                if node.op != "output":
                    found.setdefault(node, []).append(source)
    return found


def _in_place_source(node: fx.Node) -> fx.Node:
    """The node whose name a value has: an in-place operation passes on that of its input."""
    target = returned_input(node)
    return node if target is None else _in_place_source(target)
