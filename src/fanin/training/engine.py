"""The compiled steps of one model: one program for each kind of batch, made at the first batch of its kind."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from fanin.errors import NotTraceableError
from fanin.graph.tree import leaves
from fanin.kernels.rows import rows_key, rows_tensors
from fanin.layers.base.devices import device_of
from fanin.program import Program
from fanin.training.backoff import Backoff
from fanin.training.compiling import AnyProgram, Compiler, Notes
from fanin.training.data import Batch
from fanin.training.fallback_reasons import reason_for, warn_of_fallback
from fanin.training.guards.guard import Guard
from fanin.training.guards.weight_guard import has_hooks
from fanin.training.locks import lock_of
from fanin.training.program_cache import ProgramCache
from fanin.training.step import Step
from fanin.training.sums import Sums
from fanin.training.uncopied import Uncopied
from fanin.training.updaters import Updater


class Outcome(NamedTuple):
    """What one compiled step returns: the loss and the outputs, as far as the engine wants them."""

    loss: Tensor | None
    outputs: Any


class Engine(Uncopied):
    """The compiled steps of one model.

    Args:
        step: what a step computes.
        updater: the optimizer; None leaves training to the eager step.
        sums: what the steps add to.
        wants_loss: whether each step returns its loss.
        wants_outputs: whether each step returns the model's outputs.
        make: the class of its programs: `Program`, or `InductorProgram`.

    Attributes:
        lock: that of the model, as of the last `revalidate`.
        is_ready: whether the model can be traced: all weights are made, none has hooks.

    `train` and `test` return None where the batch has to run eagerly; the eager step computes the same.
    """

    def __init__(
        self,
        step: Step,
        updater: Updater | None,
        sums: Sums,
        wants_loss: bool = False,
        wants_outputs: bool = False,
        make: type[AnyProgram] | None = None,
    ):
        self.updater, self.sums = updater, sums
        self.wants_loss, self.wants_outputs = wants_loss, wants_outputs
        self.model, self._extra_objects = step.objective.model, step.extra_objects
        self.lock = lock_of(self.model)
        self._compiler = Compiler(step, updater, sums, wants_loss, wants_outputs, make or Program)
        self._programs: ProgramCache[tuple[AnyProgram, Notes]] = ProgramCache()
        self._guard: Guard | None = None
        self._backoff = Backoff()
        self._trains = self.is_ready = False
        self._warned = False
        self._reason: str | None = None
        self._last_batch: Batch | None = None
        self._last_kind: Hashable = None
        self._last_key: Hashable = None
        self._last_found: tuple[AnyProgram, Notes] | None = None
        self._last_inputs: list[Tensor] = []
        self._captured: list[tuple[Tensor, int]] = []  # tensors that programs captured, and their addresses
        self._last_rows: list[Tensor] = []

    # --- validity of the programs ----------------------------------------------------------------------------

    def revalidate(self) -> None:
        """Drop all programs if the model has changed since they were made."""
        with self.lock:
            self._revalidate()

    def _revalidate(self) -> None:
        updater = self.updater if self._trains else None
        is_moved = any(one.data_ptr() != address for one, address in self._captured)
        if self._guard is None or is_moved or not self._guard.holds() or (updater is not None and not updater.holds()):
            if self._guard is not None:
                self._backoff.note_change()
                if self._backoff.is_at_limit:
                    what = self._guard.difference() or "something beside the module"
                    self._explain(NotTraceableError(f"{what} changes again and again"))
            self._programs.clear()
            self._captured.clear()
            self._last_key = None
            self._bind()
            self._guard = Guard(self.model, self._extra_objects)
        self._modes = self._guard.modes()
        self._last_batch = None

    def _bind(self) -> None:
        self.lock = lock_of(self.model)
        self._device = device_of(self.model).type
        self.is_ready = not any(is_lazy(one) for one in (*self.model.parameters(), *self.model.buffers()))
        self.is_ready &= not any(has_hooks(one) for one in self.model.parameters())  # which tracing does not call
        trained: list[Tensor] = [p for p in self.model.parameters() if p.requires_grad]
        self._trains = self.is_ready and bool(trained)
        if self.updater is not None and self._trains:
            with torch.inference_mode(False):  # state that is made here outlives the step
                self.updater.bind(trained)
            self._trains = bool(self.updater.weights)

    def forget_batch(self) -> None:
        """Release the tensors of the last batch, after a pass."""
        self._last_batch, self._last_inputs, self._last_rows = None, [], []

    @property
    def programs(self) -> list[AnyProgram]:
        """The programs made so far, the most recently used last."""
        return [found[0] for found in self._programs.values() if found is not None]

    # --- steps -----------------------------------------------------------------------------------------------

    def train(self, batch: Batch) -> Outcome | None:
        """One training step; None if it has to run eagerly, and nothing was done."""
        updater = self.updater
        if updater is None or not self.is_ready or not self._trains:
            return None
        if not self._backoff.count_step():
            return None
        kind = updater.begin_step()
        found = self._program(("train", kind), batch, lambda: self._compiler.train(kind, batch))
        outcome = None if found is None else self._run(*found, batch)
        if outcome is not None:
            updater.end_step(kind, found[1].has_gradient)  # type: ignore[index]
        return outcome

    def test(self, batch: Batch) -> Outcome | None:
        """Loss and metrics of one batch; None if it has to run eagerly, and nothing was done."""
        found = self._program(("test",), batch, lambda: self._compiler.test(batch)) if self.is_ready else None
        return None if found is None else self._run(*found, batch)

    def _run(self, program: AnyProgram, notes: Notes, batch: Batch) -> Outcome | None:
        results = program.new_results()
        try:
            program.run_on(self._last_inputs, results)
        except IndexError:  # a label or an index out of range: the eager step says which
            return None
        except NotTraceableError as error:  # inductor fails; later steps do without it
            self._explain(error)
            self._compiler.make = Program
            self._programs.clear()
            self._last_batch = self._last_key = None
            return None
        if notes.added:
            notes.show_losses(results[-len(notes.added) :])
            del results[-len(notes.added) :]
        loss = results.pop(0) if self.wants_loss else None
        return Outcome(loss, pytree.tree_unflatten(results, notes.outputs) if self.wants_outputs else None)

    def _program(
        self, kind: Hashable, batch: Batch, make: Callable[[], tuple[AnyProgram, Notes]]
    ) -> tuple[AnyProgram, Notes] | None:
        rows = rows_tensors()
        if batch is self._last_batch and kind == self._last_kind and _are_same(rows, self._last_rows):
            return self._last_found  # the same tensors, refilled
        signatures = _signature(batch.x), _signature(batch.y), _signature(batch.weight)
        key = kind, signatures, self._modes, _autocast(self._device), rows_key()
        found = self._last_found  # comparing with the last key is faster than a lookup
        if key != self._last_key or found is None:
            with self.lock:
                found = self._programs.find(key, lambda: self._made(make))
        if found is not None:
            self._last_batch, self._last_kind, self._last_key, self._last_found = batch, kind, key, found
            self._last_rows, self._last_inputs = rows, found[0].view_inputs([*_leaves(batch), *rows])
        return found

    def _made(self, make: Callable[[], tuple[AnyProgram, Notes]]) -> tuple[AnyProgram, Notes] | None:
        try:
            found = make()
            self._captured += [(one, one.data_ptr()) for one in found[0].captured if one.layout == torch.strided]
            return found
        except Exception as error:
            self._explain(error)
            return None

    # --- what cannot be compiled -----------------------------------------------------------------------------

    def _explain(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._reason = reason_for(error)

    def warn(self, advice: str = "") -> None:
        """Warn, once, why steps run eagerly, with advice; called after an eager step that succeeded."""
        reason, self._reason = self._reason, None
        if reason is not None:
            warn_of_fallback(reason, advice)


def _are_same(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(ones) == len(others) and all(one is other for one, other in zip(ones, others, strict=True))


def _leaves(batch: Batch) -> list[Tensor]:
    if all(part is None or isinstance(part, Tensor) for part in batch[:3]):
        return [part for part in batch[:3] if part is not None]
    return [one for one in leaves(tuple(batch[:3])) if one is not None]


def _signature(part: Any) -> Hashable:
    """The part of a program's key for inputs, targets or weights: structure, shapes, strides, dtypes, devices."""
    if isinstance(part, Tensor):
        return part.shape, part.stride(), part.dtype, part.device
    if isinstance(part, Mapping):
        return tuple((name, _signature(item)) for name, item in part.items())
    return (type(part), *map(_signature, part)) if isinstance(part, (list, tuple)) else None


def _autocast(device: str) -> Hashable:
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
