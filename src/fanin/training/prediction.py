"""Compiled prediction: a program for each shape of input, for any module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fanin.kernels.rows import rows_key, rows_tensors, with_rows_tensors
from fanin.layers.base.convert import as_tensor
from fanin.layers.base.devices import device_of
from fanin.layers.base.modes import in_eval_mode
from fanin.layers.base.scope import records_kept
from fanin.program import Program
from fanin.program.effects import tensors_of
from fanin.program.passes import FOR_GOOD, UNTIL_PREPARED, TracedPass
from fanin.program.row_independence import rows_are_independent
from fanin.program.trace import Traced, trace
from fanin.training.guards.guard import Guard
from fanin.training.locks import lock_of
from fanin.training.program_cache import ProgramCache
from fanin.training.side_effects import without_side_effects
from fanin.training.swapped import swapped
from fanin.training.uncopied import Uncopied

_MOST_SHAPES = 32  # that `quickly` knows
ArrayFunction = Callable[[Any], list[Any]]
FLOAT32 = np.dtype(np.float32)
# Rows in one run, for models that work row by row: the widest value of a run then fits the caches of a CPU. Other
# devices get more at once.
_NUMBERS_AT_ONCE = 1 << 20
_LEAST_AT_ONCE, _MOST_AT_ONCE = 32, 4096
TILE = 32  # rows in one run of a deterministic prediction, where a row gives the same bits in every batch


class Prediction(Uncopied):
    """The outputs of a module, in eval mode and without gradients, by programs.

    Args:
        module: any module.
        call: the function to run; default the module itself.
        is_snapshot: whether programs read copies of the weights, made once.

    Otherwise programs read the module's own weights. What they compute from weights alone, such as casts, is kept until
    the next `revalidate`, which also detects all other changes of the module.
    """

    def __init__(
        self,
        module: nn.Module,
        call: Callable[[Any], Any] | None = None,
        is_snapshot: bool = False,
    ):
        self.module = module
        self._lock = lock_of(module)
        self._further_passes: Sequence[TracedPass] = [self._copy_captured, *FOR_GOOD] if is_snapshot else UNTIL_PREPARED
        self._copies: dict[int, tuple[Tensor, Tensor]] | None = {} if is_snapshot else None
        self._call = call or module
        self._programs: ProgramCache[tuple[Program, Any]] = ProgramCache(may_defer=not is_snapshot)
        self._by_shape: dict[Any, tuple[ArrayFunction, Any]] = {}
        self._rows_at_once: dict[Any, int | None] = {}
        self._guard: Guard | None = None

    def revalidate(self) -> None:
        """Forget the programs if the module changed since they were made."""
        with self._lock:
            if self._guard is None or not self._guard.holds_for_outputs() or not self._guard.strides_hold():
                self._programs.clear()
                self._by_shape.clear()
                self._rows_at_once.clear()
                self._guard = Guard(self.module)
                self._lock = lock_of(self.module)
            programs = self.programs
        for program in programs:
            program.prepare()

    def quickly(self, x: Any) -> Any:
        """The outputs for an array of a shape that `remember` knows, with the least overhead.

        None where the caller has to go the long way: for another shape, after a change of the module, in train mode.
        """
        found = self._by_shape.get(x.shape) if x.dtype is FLOAT32 and x.flags.c_contiguous else None
        guard = self._guard
        if (
            found is None
            or guard is None
            or not guard.holds_for_outputs()
            or guard.is_training()
            or rows_key() is not None
        ):
            return None
        run, structure = found
        results = run(x)
        return results[0] if structure is None else pytree.tree_unflatten(results, structure)

    def remember(self, x: Any) -> None:
        """Let `quickly` find the program of this array."""
        on_cpu = device_of(self.module).type == "cpu"
        found = self.program(as_tensor(x)) if x.dtype == FLOAT32 and on_cpu else None
        if found is None or rows_key() is not None:
            return
        if found[0].is_prepared:  # its prepared values would have to be recomputed
            return
        if all(result.dtype != torch.bfloat16 for result in found[0].results):
            if len(self._by_shape) >= _MOST_SHAPES:
                self._by_shape.clear()
            program, structure = found
            self._by_shape[x.shape] = array_function(program), None if structure.is_leaf() else structure

    @property
    def programs(self) -> list[Program]:
        """The programs made so far, the most recently used last."""
        return [found[0] for found in self._programs.values() if found is not None]

    def program(self, x: Any) -> tuple[Program, Any] | None:
        """(program, structure of its results) for inputs like x; None if they have to run eagerly.

        The program takes what `inputs` returns.
        """
        inputs, structure = pytree.tree_flatten(x)
        key = structure, rows_key(), tuple((one.shape, one.dtype, one.device, one.stride()) for one in inputs)
        with self._lock:
            return self._programs.find(key, lambda: self._compile(inputs, structure))

    def inputs(self, x: Any) -> list[Tensor]:
        """The inputs of a program: the leaves of x, and the tensors that say which adapter acts in which row."""
        return [*pytree.tree_leaves(x), *rows_tensors()]

    def rows_at_once(self, x: Any) -> int | None:
        """The number of rows in one run that suits the device, if the model works row by row; else None."""
        inputs, structure = pytree.tree_flatten(x)
        key = structure, rows_key(), tuple((one.shape[1:], one.dtype, one.device) for one in inputs)
        with self._lock:
            if key not in self._rows_at_once:
                self._rows_at_once[key] = self._find_rows_at_once(inputs, structure)
            return self._rows_at_once[key]

    def _find_rows_at_once(self, inputs: list[Tensor], structure: Any) -> int | None:
        if rows_key() is not None:
            return None
        examples = [[one.new_zeros(rows, *one.shape[1:]) for one in inputs] for rows in (3, 8)]
        try:
            with in_eval_mode(self.module.modules()), without_side_effects(self.module):
                few, more = (trace(*self._function(arguments, structure)) for arguments in examples)
                is_row_wise = rows_are_independent(few, more)
        except Exception:  # it cannot be traced: then it runs eagerly
            is_row_wise = False
        if not is_row_wise:
            return None
        widest = max(_numel_of(node) for node in few.graph.nodes if node not in few.static) // 3
        numbers, most = (_NUMBERS_AT_ONCE, _MOST_AT_ONCE) if inputs[0].device.type == "cpu" else (1 << 25, 1 << 16)
        return max(_LEAST_AT_ONCE, min(most, numbers // widest))

    def _function(self, inputs: list[Tensor], structure: Any, structures: list[Any] | None = None) -> Any:
        """(function, static tensors, inputs) for `trace`. The structure of the results goes into `structures`."""
        tensors = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        static = list({id(tensor): tensor for tensor in tensors.values()}.values())
        places = {id(tensor): place for place, tensor in enumerate(static)}
        if self._copies is not None:
            static = [self._copy(one) for one in static]
        rows = rows_tensors()

        def function(*arguments: Tensor) -> list[Any]:
            replacements = {key: arguments[place] for key, place in places.items()}
            end = len(arguments) - len(rows)
            x = pytree.tree_unflatten(list(arguments[len(static) : end]), structure)
            substituted = swapped(self.module, replacements)
            with torch.no_grad(), with_rows_tensors(arguments[end:]), substituted, records_kept(self.module):
                outputs = self._call(x)
            found, spec = pytree.tree_flatten(outputs)
            if structures is not None:
                structures.append(spec)
            return found

        return function, static, [*inputs, *rows]

    def _copy(self, tensor: Tensor) -> Tensor:
        """The snapshot's copy of a tensor, made at the first request."""
        assert self._copies is not None
        if id(tensor) not in self._copies:
            with torch.inference_mode(False):
                self._copies[id(tensor)] = tensor, tensor.detach().clone()
        return self._copies[id(tensor)][1]

    def _copy_captured(self, traced: Traced) -> None:
        """A pass: a snapshot reads copies of captured tensors, too."""
        for node, one in traced.static.items():
            if node.op == "get_attr" and isinstance(one, Tensor):
                traced.static[node] = self._copy(one)

    def guard_snapshot(self) -> None:
        """Guard the module of a snapshot from now on: its layers are built."""
        self._guard = Guard(self.module)

    def _check_unchanged(self) -> None:
        """RuntimeError if the module of a snapshot has changed: a new program would not match the others."""
        if self._guard is not None and not self._guard.holds_for_outputs():
            what = self._guard.difference() or "something"
            raise RuntimeError(
                f"compile_predict: inputs of another shape came first after a change of the module ({what}). Call "
                "refresh() to take it over."
            )

    def _compile(self, inputs: list[Tensor], structure: Any) -> tuple[Program, Any] | None:
        structures: list[Any] = []
        if self._copies is not None and rows_key() is None:  # inside `fanin.adapters.rows` the layers differ
            self._check_unchanged()
        try:
            with in_eval_mode(self.module.modules()), without_side_effects(self.module) as effects:
                function, static, arguments = self._function(inputs, structure, structures)
                program = Program(effects.watching(function), static, arguments, further_passes=self._further_passes)
                effects.check(program.traced)
        except Exception:
            return None
        return program, structures[-1]

    def eager(self, x: Any) -> Any:
        """The outputs without a program; for a snapshot, with the copied weights."""
        copies = {key: copy for key, (_, copy) in (self._copies or {}).items()}
        with self._lock, in_eval_mode(self.module.modules()), torch.no_grad(), swapped(self.module, copies):
            return self._call(x)

    def __call__(self, x: Any) -> Any:
        """The outputs for tensors, as new tensors."""
        found = self.program(x)
        if found is None:
            return self.eager(x)
        program, structure = found
        try:
            return pytree.tree_unflatten(program(*self.inputs(x)), structure)
        except IndexError:
            return self.eager(x)  # its message names the layer


def array_function(program: Program) -> ArrayFunction:
    """array -> new arrays, by a program of one input that has no bfloat16 result."""

    def run(x: Any) -> list[Any]:
        results = program.new_results()
        program.run_into((tensor_on(x),), results)
        return [result.numpy() for result in results]

    return program.numpy_run or run


def _numel_of(node: Any) -> int:
    """The number of elements of the largest tensor in a node's value."""
    return max((one.numel() for one in tensors_of(node.meta.get("val"))), default=0)


def tensor_on(x: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on an array's memory; a copy of a read-only array."""
    return torch.from_numpy(x if x.flags.writeable else x.copy())
