"""Runs the steps of a pass, compiled or eagerly, and reports its losses and metrics."""

from __future__ import annotations

from typing import Any

import torch

from fanin.layers.base.devices import device_of
from fanin.layers.base.ledger import run_updates
from fanin.optimizers import Optimizer
from fanin.program import InductorProgram, Program
from fanin.training.compiled import Compiled
from fanin.training.data import Batch
from fanin.training.eager import train_eagerly
from fanin.training.engine import Engine
from fanin.training.locks import lock_of
from fanin.training.step import Result, State, Step
from fanin.training.sums import Sums
from fanin.training.updaters import updater_for

_ADVICE = "compile(run_eagerly=True) does so without this warning."


class Trainer:
    """A model, what it was compiled with, and the running sums of one pass over data.

    One step is: `Step.train` (loss, gradients, metric sums), the optimizer's update, constraints, then updates. The
    `Engine` runs it compiled; what it cannot compile runs eagerly, here.
    """

    def __init__(self, model: Any, compiled: Compiled, output_shape: Any):
        self.model = model
        self.compiled = compiled
        self._own_metrics = overrides(model, "compute_metrics")
        measure = _no_sums if self._own_metrics else compiled.measuring.measure
        self.step = Step(model, _loss_of(model, compiled), measure, compiled.loss_objects)
        self._own_train, self._own_test = overrides(model, "train_step"), overrides(model, "test_step")
        # New sums reset the compiled metrics; a model's own hooks may use other metrics, which need `reset_metrics`.
        own = self._own_train or self._own_test or self._own_metrics
        self._resets = own or overrides(model, "reset_metrics")
        self._own_logs: dict[str, Any] = {}  # what the model's own step returned last
        self._metric_logs: dict[str, Any] = {}  # what its own `compute_metrics` returned last
        self.output_shape = output_shape
        self.rows = 0

    def begin_pass(self) -> None:
        """Start an epoch or an evaluation: empty sums."""
        self._lock = lock_of(self.model)  # for eager steps; the engine has its own
        with torch.inference_mode(False):  # sums outlive the pass
            self.engine = self._engine(device_of(self.model))
        self.state: State = self.step.live_state(self.engine.sums.metrics)
        self.rows = 0
        self._own_logs, self._metric_logs = {}, {}
        self.compiled.measuring.hand_over(self.engine.sums.metrics)
        if self._resets:
            self.model.reset_metrics()
        else:
            self.model.begin_metrics()
        self._ledgers = self.model._ledgers()
        self.revalidate()

    def revalidate(self) -> None:
        """Drop the programs of the engine if callbacks have changed the model."""
        if not self.compiled.run_eagerly:
            self.engine.revalidate()

    def _engine(self, device: torch.device) -> Engine:
        """The engine of the last pass with its sums reset, if it still fits; else a new one."""
        compiled, engine = self.compiled, self.compiled.engine
        metrics = compiled.measuring.new_sums(device)
        sums = Sums.new(1 + len(compiled.loss_names), [] if self._own_metrics else metrics, device)
        known = engine is not None and engine.model is self.model and engine.outputs is compiled.outputs
        if known and engine.sums.fits(sums):
            engine.sums.restart(sums.metrics)
            return engine  # type: ignore[no-any-return]
        updater = updater_for(compiled.optimizer)
        make = InductorProgram if compiled.jit_compile is True else Program
        wants_outputs = compiled.measuring.keeps_own_states or self._own_metrics
        compiled.engine = Engine(self.step, updater, sums, wants_outputs=wants_outputs, make=make)
        compiled.engine.outputs = compiled.outputs
        return compiled.engine  # type: ignore[no-any-return]

    def train(self, batch: Batch) -> None:
        """One training step: the model's own, where it has one."""
        if self._own_train:
            with torch.enable_grad():
                self._own_step(self.model.train_step, batch)
        else:
            self.train_default(batch)
        self.rows += batch.size

    def train_default(self, batch: Batch) -> None:
        """One training step."""
        if not self.compiled.run_eagerly and (outcome := self.engine.train(batch)) is not None:
            self._run_kept_updates([])
            self._count(batch, outcome.outputs)
            return
        with self._lock:
            result = train_eagerly(self.step, self.state, self.compiled.optimizer, batch)
        self._run_kept_updates(result.updates)
        self._add(result, batch)
        self.engine.warn(_ADVICE)

    def _run_kept_updates(self, added: list[Any]) -> None:
        """The updates that were added outside calls, then those of this step's call."""
        if added or any(ledger._kept_updates for ledger in self._ledgers):
            run_updates([*self.model.kept_updates(), *added])

    def finish(self) -> None:
        """The end of training: weights become their averages, where the optimizer keeps any."""
        if self.compiled.engine is not None:
            self.compiled.engine.forget_batch()
        if isinstance(self.compiled.optimizer, Optimizer):
            self.compiled.optimizer.finalize_variable_values(self.model.trainable_variables)

    def test(self, batch: Batch) -> None:
        """Loss and metrics of one batch: by the model's own step, where it has one."""
        if self._own_test:
            with torch.no_grad():
                self._own_step(self.model.test_step, batch)
        else:
            self.test_default(batch)
        self.rows += batch.size

    def _own_step(self, step: Any, batch: Batch) -> None:
        """Run the model's own step, which may call that of its base class, and so `train_default` or `test_default`."""
        self.model.__dict__["_trainer"] = self
        try:
            with self._lock:
                self._own_logs = step(_as_data(batch))
        finally:
            del self.model.__dict__["_trainer"]

    def test_default(self, batch: Batch) -> None:
        """Loss and metrics of one batch."""
        if not self.compiled.run_eagerly and (outcome := self.engine.test(batch)) is not None:
            self._count(batch, outcome.outputs)
            return
        with self._lock:
            result = self.step.test(self.state, batch)
        self._add(result, batch)
        self.engine.warn(_ADVICE)

    def _add(self, result: Result, batch: Batch) -> None:
        """The losses of a step join the sums, weighted by the rows of the batch; the metrics' new sums too."""
        with torch.no_grad():
            self.engine.sums.add((result.loss, *result.parts), result.logs, batch.size)
        self._count(batch, result.outputs)

    def _count(self, batch: Batch, outputs: Any) -> None:
        self.engine.sums.rows += batch.size
        if self._own_metrics:
            with torch.no_grad():
                self._metric_logs = self.model.compute_metrics(batch.x, batch.y, outputs, sample_weight=batch.weight)
        elif self.compiled.measuring.keeps_own_states:
            with torch.no_grad():
                self.compiled.measuring.measure_own(batch.y, outputs, batch.weight)

    def logs(self) -> dict[str, Any]:
        """What the model's own step returned last; else losses and metrics of the pass."""
        return _as_numbers(self._own_logs) or self.default_logs()

    def default_logs(self) -> dict[str, Any]:
        """The mean losses of the pass, weighted by batch sizes, and the metrics."""
        if not self.engine.sums.rows:
            return {}
        return _as_numbers(self._metric_logs or self.model.get_metrics_result())


def overrides(model: Any, hook: str) -> bool:
    """Whether a model's class overrides this hook."""
    method = getattr(type(model), hook, None)
    return method is not None and not getattr(method, "is_default", False)


def _no_sums(sums: Any, y: Any, outputs: Any, weight: Any) -> list[Any]:
    return []


def _as_numbers(logs: dict[str, Any]) -> dict[str, Any]:
    """Floats, and arrays for metrics of several numbers."""
    found = {name: torch.as_tensor(value).detach() for name, value in logs.items()}
    return {name: float(one) if one.numel() == 1 else one.cpu().numpy() for name, one in found.items()}


def _loss_of(model: Any, compiled: Compiled) -> Any:
    """The compiled loss, or None where the model has its own `compute_loss`."""
    return None if overrides(model, "compute_loss") else compiled.compute_loss


def _as_data(batch: Batch) -> Any:
    """The argument of a model's own step: (x, y, sample_weight), (x, y) or x."""
    if batch.weight is not None:
        return batch.x, batch.y, batch.weight
    if batch.y is not None:
        return batch.x, batch.y
    return (batch.x,) if isinstance(batch.x, (list, tuple)) else batch.x
