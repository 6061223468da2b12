"""Runs steps on a model and keeps the sums of a pass; the optimizer's part of a step is here."""

from __future__ import annotations

from typing import Any

import torch

from fanin import constraints
from fanin.layers.ledger import run_updates
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
        self.step = Step(model, compiled.compute_loss, compiled.measure)
        self.output_shape = output_shape
        self.rows = 0

    def begin_pass(self) -> None:
        """Start an epoch or an evaluation: empty sums."""
        device = next((parameter.device for parameter in self.model.parameters()), None)
        self.state: State = self.step.live_state(self.compiled.new_sums(device))
        self.rows = 0
        self._loss_sum: torch.Tensor | None = None
        self._ledgers = self.model._ledgers()
        self._constrained = any(True for _ in each_fact(self.model, CONSTRAINTS))

    def train(self, batch: Batch) -> None:
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
        self._add(result.loss, result.logs, batch.size)

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

    def test(self, batch: Batch) -> None:
        """Loss and metrics of one batch."""
        loss, sums, _ = self.step.test(self.state, batch)
        self._add(loss, sums, batch.size)

    def _add(self, loss: torch.Tensor, sums: Any, size: int) -> None:
        weighted = loss.detach().double() * size
        self._loss_sum = weighted if self._loss_sum is None else self._loss_sum + weighted
        self.state.metrics = sums
        self.rows += size

    def logs(self) -> dict[str, float]:
        """The mean loss of the pass, weighted by batch sizes, and the metrics."""
        if self._loss_sum is None:
            return {}
        return {"loss": float(self._loss_sum) / self.rows, **self.compiled.results(self.state.metrics)}
