"""Runs steps on a model and keeps the sums of a pass; the optimizer's part of a step is here."""

from __future__ import annotations

from typing import Any

import torch

from fanin import constraints
from fanin.layers.ledger import run_updates
from fanin.optimizers import Optimizer
from fanin.training.compiled import Compiled
from fanin.training.data import Batch
from fanin.training.step import Result, State, Step
from fanin.weights import CONSTRAINTS, each_fact


class Trainer:
    """A model, what it was compiled with, and the running sums of one pass over data.

    One step is: `Step.train_live` (loss, gradients, buffers, metric sums), the optimizer's update, constraints, then
    updates.
    """

    def __init__(self, model: Any, compiled: Compiled, output_shape: Any):
        self.model = model
        self.compiled = compiled
        self.step = Step(model, _loss_of(model, compiled), compiled.measure)
        self._own_train, self._own_test = overrides(model, "train_step"), overrides(model, "test_step")
        self._own_logs: dict[str, Any] = {}
        self.output_shape = output_shape
        self.rows = 0

    def begin_pass(self) -> None:
        """Start an epoch or an evaluation: empty sums."""
        device = next((parameter.device for parameter in self.model.parameters()), None)
        self.state: State = self.step.live_state(self.compiled.new_sums(device))
        self.rows = 0
        self._sums: list[torch.Tensor] = []
        self._own_logs = {}
        if self._own_train or self._own_test:
            self.model.reset_metrics()
        self._counted = 0
        self._ledgers = self.model._ledgers()
        self._constrained = any(True for _ in each_fact(self.model, CONSTRAINTS))

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
        if isinstance(self.compiled.optimizer, torch.optim.Optimizer):
            result = self._torch_step(self.compiled.optimizer, batch)
        else:
            result = self.step.train_live(self.state, batch)
            names = list(result.gradients)
            self.compiled.optimizer.apply(
                [self.state.parameters[name] for name in names], [result.gradients[name] for name in names]
            )
        if self._constrained:
            constraints.apply(self.model)
        if result.updates or any(ledger._kept_updates for ledger in self._ledgers):
            run_updates([*self.model.kept_updates(), *result.updates])
        self._add(result, batch.size)

    def _torch_step(self, optimizer: torch.optim.Optimizer, batch: Batch) -> Result:
        """A torch optimizer steps outside, on `.grad`; one like LBFGS may ask for the step several times."""
        results: list[Result] = []

        def closure() -> float:
            result = self.step.train_live(self.state, batch)
            for name, parameter in self.state.parameters.items():
                parameter.grad = result.gradients.get(name)
            results.append(result)
            return float(result.loss) if isinstance(optimizer, torch.optim.LBFGS) else 0.0

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        else:
            closure()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return results[0]

    def finish(self) -> None:
        """The end of training: weights become their averages, where the optimizer keeps any."""
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
        """A step of the model's own, which may call that of its base class, and so come back here."""
        self.model.__dict__["_trainer"] = self
        try:
            self._own_logs = step(_as_data(batch))
        finally:
            del self.model.__dict__["_trainer"]

    def test_default(self, batch: Batch) -> None:
        """Loss and metrics of one batch."""
        self._add(self.step.test(self.state, batch), batch.size)

    def _add(self, result: Result, size: int) -> None:
        """The losses of a step join the sums, weighted by the rows of the batch."""
        terms = [value.detach().double() * size for value in (result.loss, *result.parts)]
        self._sums = [old + new for old, new in zip(self._sums, terms, strict=True)] if self._sums else terms
        self.state.metrics = result.logs
        self._counted += size

    def logs(self) -> dict[str, float]:
        """What a step of the model's own gave last; else losses and metrics of the pass."""
        if self._own_logs:
            return {name: float(torch.as_tensor(value).detach()) for name, value in self._own_logs.items()}
        return self.default_logs()

    def default_logs(self) -> dict[str, float]:
        """The mean losses of the pass, weighted by batch sizes, and the metrics."""
        if not self._sums:
            return {}
        names = ["loss", *self.compiled.loss_names]
        means = {name: float(value) / self._counted for name, value in zip(names, self._sums, strict=True)}
        return means | self.compiled.results(self.state.metrics)


def overrides(model: Any, hook: str) -> bool:
    """Whether a model has a step, or a loss, of its own."""
    method = getattr(type(model), hook, None)
    return method is not None and not getattr(method, "is_default", False)


def _loss_of(model: Any, compiled: Compiled) -> Any:
    """The compiled loss, or None where the model says it all by its own `compute_loss`."""
    return None if overrides(model, "compute_loss") else compiled.compute_loss


def _as_data(batch: Batch) -> Any:
    """What a step of one's own gets: (x, y, sample_weight), shorter without; x alone if there is nothing else."""
    if batch.weight is not None:
        return batch.x, batch.y, batch.weight
    if batch.y is not None:
        return batch.x, batch.y
    return (batch.x,) if isinstance(batch.x, (list, tuple)) else batch.x
