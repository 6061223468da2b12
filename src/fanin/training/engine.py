"""The compiled steps of one model: a program for each kind of batch, made when the first of its kind comes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from fanin import constraints
from fanin.errors import NotTraceableError
from fanin.graph.tree import leaves
from fanin.kernels.rows import rows_key, rows_tensors, with_rows_tensors
from fanin.layers.ledger import run_updates
from fanin.program import InductorProgram, Program
from fanin.training.data import Batch
from fanin.training.reasons import reason_for, warn_of
from fanin.training.step import Result, State, Step
from fanin.training.sums import Sums
from fanin.training.swapped import swapped
from fanin.training.updaters import Updater
from fanin.training.watch import Watch, has_hooks

_MOST_PROGRAMS = 32
AnyProgram = Program | InductorProgram


class Notes:
    """What was seen while a step was traced: which weights got a gradient, and the structure of the outputs."""

    def __init__(self) -> None:
        self.has_gradient: list[bool] = []
        self.outputs: Any = None


class Outcome(NamedTuple):
    """What one compiled step returns, as far as it was asked for."""

    loss: Tensor | None
    outputs: Any


class Engine:
    """The compiled steps of one model.

    Args:
        step: what a step computes.
        updater: the optimizer; None leaves training to the eager step.
        sums: what the steps add to.
        wants_loss: whether each step returns its loss.
        wants_outputs: whether each step returns the model's outputs.
        make: what compiles a step: `Program`, or `InductorProgram`.

    `train` and `test` return None where the batch has to go the eager way; the eager step computes the same.
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
        self._make = make or Program
        self.step, self.updater, self.sums = step, updater, sums
        self.wants_loss, self.wants_outputs = wants_loss, wants_outputs
        self.model = step.objective.model
        self._programs: OrderedDict[Hashable, tuple[AnyProgram, Notes] | None] = OrderedDict()
        self._watch: Watch | None = None
        self._trains = self.is_ready = False  # whether there are weights, all of them made, and without hooks
        self._warned = False
        self._reason: str | None = None
        self._last_batch: Batch | None = None
        self._last_kind: Hashable = None
        self._last_found: tuple[AnyProgram, Notes] | None = None
        self._last_inputs: list[Tensor] = []
        self._last_rows: list[Tensor] = []

    def __reduce__(self) -> Any:
        return _nothing, ()  # a copy of a model compiles its own

    # --- keeping up with the model ---------------------------------------------------------------------------

    def look(self) -> None:
        """See whether the model changed since its programs were made, and forget them if it did."""
        updater = self.updater if self._trains else None
        if self._watch is None or not self._watch.stands() or (updater is not None and not updater.stands()):
            self._programs.clear()
            self._arrange()
            self._watch = Watch(self.model)
        self._modes = self._watch.modes()
        self._last_batch = None

    def _arrange(self) -> None:
        self.is_ready = not any(is_lazy(one) for one in (*self.model.parameters(), *self.model.buffers()))
        self.is_ready &= not any(has_hooks(one) for one in self.model.parameters())  # tracing would not meet them
        trained: list[Tensor] = [p for p in self.model.parameters() if p.requires_grad]
        self._trains = self.is_ready and bool(trained)
        if self.updater is not None and self._trains:
            self.updater.arrange(trained)
            self._trains = bool(self.updater.weights)

    def forget_batch(self) -> None:
        """Let go of the last batch, after a pass."""
        self._last_batch, self._last_inputs, self._last_rows = None, [], []

    @property
    def programs(self) -> list[AnyProgram]:
        """The programs made so far, those used last at the end."""
        return [found[0] for found in self._programs.values() if found is not None]

    # --- steps -----------------------------------------------------------------------------------------------

    def train(self, batch: Batch) -> Outcome | None:
        """One training step; None if nothing was done."""
        updater = self.updater
        if updater is None or not self.is_ready or not self._trains:
            return None
        kind = updater.next()
        found = self._program(("train", kind), batch, lambda *given: self._train_on(kind, *given))
        outcome = None if found is None else self._run(*found, batch)
        if outcome is not None:
            updater.done(kind, found[1].has_gradient)  # type: ignore[index]
        return outcome

    def test(self, batch: Batch) -> Outcome | None:
        """Loss and metrics of one batch; None if nothing was done."""
        found = self._program(("test",), batch, self._test_on) if self.is_ready else None
        return None if found is None else self._run(*found, batch)

    def _run(self, program: AnyProgram, notes: Notes, batch: Batch) -> Outcome | None:
        results = program.new_results()
        try:
            program.run_on(self._last_inputs, results)
        except IndexError:  # a label or an index out of range: the eager step says which
            return None
        loss = results.pop(0) if self.wants_loss else None
        return Outcome(loss, pytree.tree_unflatten(results, notes.outputs) if self.wants_outputs else None)

    def _program(self, kind: Hashable, batch: Batch, body: Callable[..., list[Any]]) -> tuple[AnyProgram, Notes] | None:
        rows = rows_tensors()
        if batch is self._last_batch and kind == self._last_kind and _are_same(rows, self._last_rows):
            return self._last_found  # the same tensors, filled anew
        signatures = _signature(batch.x), _signature(batch.y), _signature(batch.weight)
        key = kind, signatures, self._modes, _autocast(), rows_key()
        if key in self._programs:
            self._programs.move_to_end(key)
        else:
            self._programs[key] = self._compile(body, batch)
            if len(self._programs) > _MOST_PROGRAMS:
                self._programs.popitem(last=False)
        self._last_batch, self._last_kind, self._last_found = batch, kind, self._programs[key]
        self._last_rows = rows
        if self._last_found is not None:
            self._last_inputs = self._last_found[0].look([*_leaves(batch), *rows])
        return self._last_found

    def _compile(self, body: Callable[..., list[Any]], batch: Batch) -> tuple[AnyProgram, Notes] | None:
        tensors, structure = pytree.tree_flatten(tuple(batch[:3]))
        inputs = [one for one in tensors if one is not None]
        static, rows = self._static(), rows_tensors()
        notes = Notes()

        def function(*given: Tensor) -> list[Any]:
            stands_for = {id(real): fake for real, fake in zip(static, given, strict=False)}
            ours, of_rows = given[len(static) : len(given) - len(rows)], given[len(given) - len(rows) :]
            parts = pytree.tree_unflatten(_filled(tensors, ours), structure)
            traced_batch = Batch(parts[0], parts[1], parts[2], batch.size)
            with with_rows_tensors(of_rows), swapped(self.model, stands_for):
                return body(stands_for, traced_batch, notes)

        before = Watch(self.model)
        try:
            program = self._make(function, static, [*inputs, *rows])
        except Exception as error:
            before.restore()
            self._explain(error)
            return None
        if (moved := before.difference()) is not None:
            before.restore()
            self._explain(NotTraceableError(f"a call changes {moved}"))
            return None
        return program, notes

    def _static(self) -> list[Tensor]:
        model = self.model
        found: list[Tensor] = [*model.parameters(), *model.buffers(), *self.sums.tensors()]
        if self.updater is not None:
            found += self.updater.weights
            found += [value for slots in self.updater.slots for value in slots.values()]
            found += self.updater.numbers
        return list({id(tensor): tensor for tensor in found}.values())

    # --- what is traced --------------------------------------------------------------------------------------

    def _train_on(self, kind: Hashable, of: dict[int, Tensor], batch: Batch, notes: Notes) -> list[Any]:
        updater = self.updater
        assert updater is not None
        model, sums = self.model, self._traced_sums(of)
        numbers = [of[id(number)] for number in updater.numbers]
        state = self.step.live_state(sums.metrics)
        state.scale_loss = lambda loss: updater.with_scale(loss, numbers)
        result = self.step.train_live(state, batch)
        gradients = {id(state.parameters[name]): gradient for name, gradient in result.gradients.items()}
        weights = [of[id(weight)] for weight in updater.weights]
        given = [gradients.get(id(weight)) for weight in weights]
        notes.has_gradient = [one is not None for one in given]
        if not any(notes.has_gradient):
            raise NotTraceableError("no gradient reaches a weight")
        slots = [{name: of[id(value)] for name, value in one.items()} for one in updater.slots]
        with torch.no_grad():
            updater.play(kind, weights, given, slots, numbers)
            constraints.apply(model)
            self._run_updates(result.updates)
            sums.add((result.loss, *result.parts), result.logs, batch.size)
        return self._wanted(result, notes)

    def _test_on(self, of: dict[int, Tensor], batch: Batch, notes: Notes) -> list[Any]:
        sums = self._traced_sums(of)
        state = State({}, {}, sums.metrics)
        result = self.step.test(state, batch)
        with torch.no_grad():
            sums.add((result.loss, *result.parts), result.logs, batch.size)
        return self._wanted(result, notes)

    def _traced_sums(self, of: dict[int, Tensor]) -> Sums:
        metrics = [{name: of[id(value)] for name, value in one.items()} for one in self.sums.metrics]
        return Sums([of[id(total)] for total in self.sums.losses], metrics)

    def _wanted(self, result: Result, notes: Notes) -> list[Any]:
        outputs, notes.outputs = pytree.tree_flatten(result.outputs)
        return [*([result.loss] if self.wants_loss else []), *(outputs if self.wants_outputs else [])]

    def _adder(self, update: Any) -> str:
        """The name of the layer whose call added an update."""
        for part in self.model.modules():
            record = part.__dict__.get("_record")
            for entry in () if record is None else record.updates:
                if entry.value is update and entry.owner is part.__dict__.get("_token"):
                    return str(part.name)
        return "?"

    def _run_updates(self, updates: list[Any]) -> None:
        for update in updates:
            if callable(update) and not isinstance(update, Tensor):
                line = getattr(getattr(update, "__code__", None), "co_firstlineno", "?")
                owner = self._adder(update)
                raise NotTraceableError(f"layer {owner!r} adds a function (line {line}) as an update in its call")
        run_updates(updates)

    # --- what cannot be compiled -----------------------------------------------------------------------------

    def _explain(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._reason = reason_for(error)

    def warn(self) -> None:
        """Say, once, why steps run eagerly; called when the eager step went well."""
        reason, self._reason = self._reason, None
        if reason is not None:
            warn_of(reason)


def _are_same(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(ones) == len(others) and all(one is other for one, other in zip(ones, others, strict=True))


def _nothing() -> None:
    return None


def _leaves(batch: Batch) -> list[Tensor]:
    if all(part is None or isinstance(part, Tensor) for part in batch[:3]):
        return [part for part in batch[:3] if part is not None]
    return [one for one in leaves(tuple(batch[:3])) if one is not None]


def _filled(template: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
    """The template with its tensors replaced in order; None stays."""
    source = iter(tensors)
    return [None if one is None else next(source) for one in template]


def _signature(part: Any) -> Hashable:
    """What a program depends on in inputs, targets or weights: structure, shapes, dtypes, devices, strides."""
    if isinstance(part, Tensor):
        return part.shape, part.stride(), part.dtype, part.device
    if isinstance(part, Mapping):
        return tuple((name, _signature(item)) for name, item in part.items())
    return (type(part), *map(_signature, part)) if isinstance(part, (list, tuple)) else None


def _autocast() -> Hashable:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
