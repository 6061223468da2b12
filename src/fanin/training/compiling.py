"""Compiles the step of one model for one kind of batch: traces it with the model's tensors as static tensors.

Raises NotTraceableError for what a program would get wrong: a call that changes Python state, that draws random numbers
other than torch's, or that reads a weight other than through its module.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fanin import constraints
from fanin.errors import NotTraceableError
from fanin.kernels.rows import rows_tensors, with_rows_tensors
from fanin.layers.base.ledger import run_updates
from fanin.layers.base.scope import Entry, Record, records_kept
from fanin.program import InductorProgram, Program
from fanin.training.data import Batch
from fanin.training.side_effects import without_side_effects
from fanin.training.step import Result, State, Step
from fanin.training.sums import Sums
from fanin.training.swapped import swapped
from fanin.training.updaters import Updater

AnyProgram = Program | InductorProgram


class Notes:
    """What is known of a program besides its results.

    Attributes:
        has_gradient: for each weight of the updater, whether it gets a gradient.
        outputs: the structure of the model's outputs.
        added: the entries of the losses that calls add; their values are the last results of the program.
    """

    def __init__(self) -> None:
        self.has_gradient: list[bool] = []
        self.outputs: Any = None
        self.added: list[Entry] = []
        self._record = Record()
        self._called: list[dict[str, Any]] = []

    def take_losses(self, record: Record, model: nn.Module) -> list[Tensor]:
        """The losses that a traced call recorded, which become results of the program."""
        self._record, self.added = record, [entry for entry in record.losses if isinstance(entry.value, Tensor)]
        self._called = [vars(part) for part in model.modules() if vars(part).get("_record") is record]
        record.updates.clear()
        for entry in record.losses:
            entry.inputs = None if entry.inputs is None else []
        return [entry.value for entry in self.added]

    def show_losses(self, values: Sequence[Tensor]) -> None:
        """Set the values of these losses after a run, so that `layer.losses` shows them."""
        for entry, value in zip(self.added, values, strict=True):
            entry.value = value
        for own in self._called:
            own["_record"] = self._record


Body = Callable[[dict[int, Tensor], Batch, Notes], list[Any]]


class Compiler:
    """Makes the programs of one step.

    Args:
        step: what a step computes.
        updater: the optimizer; None where only `test` is asked for.
        sums: what the steps add to.
        wants_loss: whether each step returns its loss.
        wants_outputs: whether each step returns the model's outputs.
        make: the class of its programs: `Program`, or `InductorProgram`.
    """

    def __init__(
        self,
        step: Step,
        updater: Updater | None,
        sums: Sums,
        wants_loss: bool,
        wants_outputs: bool,
        make: type[AnyProgram],
    ):
        self._step, self._updater, self._sums = step, updater, sums
        self._wants_loss, self._wants_outputs = wants_loss, wants_outputs
        self.make = make
        self._model = step.objective.model

    def train(self, kind: Hashable, batch: Batch) -> tuple[AnyProgram, Notes]:
        """The program of a training step whose update is of this kind."""
        return self._program(lambda *arguments: self._train_on(kind, *arguments), batch)

    def test(self, batch: Batch) -> tuple[AnyProgram, Notes]:
        """The program of a step without an update."""
        return self._program(self._test_on, batch)

    def _program(self, body: Body, batch: Batch) -> tuple[AnyProgram, Notes]:
        tensors, structure = pytree.tree_flatten(tuple(batch[:3]))
        inputs = [one for one in tensors if one is not None]
        static, rows = self._static(), rows_tensors()
        notes = Notes()

        def function(*arguments: Tensor) -> list[Any]:
            fakes = {id(real): fake for real, fake in zip(static, arguments, strict=False)}
            end = len(arguments) - len(rows)
            parts = pytree.tree_unflatten(_with_tensors(tensors, arguments[len(static) : end]), structure)
            traced_batch = Batch(parts[0], parts[1], parts[2], batch.size)
            with with_rows_tensors(arguments[end:]), swapped(self._model, fakes):
                return body(fakes, traced_batch, notes)

        with without_side_effects(self._model, self._step.extra_objects) as effects, records_kept(self._model):
            program = self.make(effects.watching(function), static, [*inputs, *rows])
            effects.check(program.traced)
        self._refuse_captured_weights(program.captured, static)
        return program, notes

    def _static(self) -> list[Tensor]:
        model = self._model
        found: list[Tensor] = [*model.parameters(), *model.buffers(), *self._sums.tensors()]
        if self._updater is not None:
            found += self._updater.weights
            found += [value for slots in self._updater.slots for value in slots.values()]
            found += self._updater.numbers
        return list({id(tensor): tensor for tensor in found}.values())

    def _refuse_captured_weights(self, captured: Sequence[Tensor], static: Sequence[Tensor]) -> None:
        """NotTraceableError for weights that the step reads past the model: they would get no gradient."""
        held = [] if self._updater is None else self._updater.held
        places = {_address(one) for one in (*static, *held) if one.requires_grad} - {0}
        for one in captured:
            if _address(one) in places:
                raise NotTraceableError(
                    f"a call reaches the weight of shape {tuple(one.shape)} by another way than an attribute of its "
                    "module, such as a list"
                )

    # --- what is traced --------------------------------------------------------------------------------------

    def _train_on(self, kind: Hashable, fakes: dict[int, Tensor], batch: Batch, notes: Notes) -> list[Any]:
        updater = self._updater
        assert updater is not None
        sums = self._traced_sums(fakes)
        numbers = [fakes[id(number)] for number in updater.numbers]
        state = self._step.live_state(sums.metrics)
        state.scale_loss = lambda loss: updater.with_scale(loss, numbers)
        result = self._step.train(state, batch)
        gradients = {id(state.parameters[name]): gradient for name, gradient in result.gradients.items()}
        weights = [fakes[id(weight)] for weight in updater.weights]
        ordered = [gradients.get(id(weight)) for weight in weights]
        notes.has_gradient = [one is not None for one in ordered]
        if not any(notes.has_gradient):
            raise NotTraceableError("no gradient reaches a weight")
        slots = [{name: fakes[id(value)] for name, value in one.items()} for one in updater.slots]
        with torch.no_grad():
            updater.apply_update(kind, weights, ordered, slots, numbers)
            constraints.apply(self._model)
            self._run_updates(result.updates)
            sums.add((result.loss, *result.parts), result.logs, batch.size)
        return self._wanted(result, notes)

    def _test_on(self, fakes: dict[int, Tensor], batch: Batch, notes: Notes) -> list[Any]:
        sums = self._traced_sums(fakes)
        state = State({}, sums.metrics)
        result = self._step.test(state, batch)
        with torch.no_grad():
            sums.add((result.loss, *result.parts), result.logs, batch.size)
        return self._wanted(result, notes)

    def _traced_sums(self, fakes: dict[int, Tensor]) -> Sums:
        metrics = [{name: fakes[id(value)] for name, value in one.items()} for one in self._sums.metrics]
        return Sums([fakes[id(total)] for total in self._sums.losses], metrics)

    def _wanted(self, result: Result, notes: Notes) -> list[Any]:
        outputs, notes.outputs = pytree.tree_flatten(result.outputs)
        added = notes.take_losses(result.record, self._model)
        return [*([result.loss] if self._wants_loss else []), *(outputs if self._wants_outputs else []), *added]

    def _adder(self, update: Any) -> str:
        """The name of the layer whose call added an update; "?" if it is not known."""
        for part in self._model.modules():
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


def _address(tensor: Tensor) -> int:
    """The address of a tensor's storage; 0 for a sparse tensor."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def _with_tensors(template: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
    """The template with its tensors replaced, in order; None stays None."""
    source = iter(tensors)
    return [None if one is None else next(source) for one in template]
