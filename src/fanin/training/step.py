"""What one training step computes, as one function of state and batch, which is what gets compiled.

It knows one model and one loss. Its only side effect is that the model's buffers change, in place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fanin import regularizers
from fanin.layers.base.scope import Record, collect_losses
from fanin.training.data import Batch

Variables = dict[str, torch.Tensor]
Loss = Callable[[Any, Any, Any], tuple[torch.Tensor | None, list[torch.Tensor]]]


@dataclass
class State:
    """The tensors that a step reads, besides those in the model.

    Attributes:
        parameters: name -> tensor; those with `requires_grad` get a gradient.
        metrics: the running sums of each metric.
        scale_loss: loss -> the scalar that gradients are taken of; None for the loss itself.
    """

    parameters: Variables
    metrics: list[Variables] = field(default_factory=list)
    scale_loss: Callable[[torch.Tensor], torch.Tensor] | None = None


@dataclass
class Result:
    """What a step returns.

    Attributes:
        loss: loss, activity penalties, added losses, weight penalties; not scaled.
        parts: the loss of each output, where there are several.
        gradients: name -> gradient of the scaled loss for each trainable parameter that it depends on.
        logs: the new running sums of each metric.
        outputs: what the model returned.
        updates: the updates that the call added, to run after the optimizer's.
        record: the losses and updates that the call added.
    """

    loss: torch.Tensor
    parts: list[torch.Tensor]
    gradients: Variables
    logs: list[Variables]
    outputs: Any
    updates: list[Any]
    record: Record


class Objective(nn.Module):
    """The model together with its loss: batch -> (scalar, losses of the outputs, outputs, what the call recorded)."""

    def __init__(self, model: nn.Module, loss: Loss | None):
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor], Any, Record]:
        """The loss, plus what layers added, plus the penalties on weights."""
        if self.loss is None:
            return self._by_compute_loss(batch)
        with collect_losses() as record:
            outputs = self.model(batch.x)
        first, parts = self.loss(batch.y, outputs, batch.weight)
        added = [*(entry.value for entry in record.losses), *regularizers.penalties(self.model)]
        return sum_of_losses(first, added), parts, outputs, record

    def _by_compute_loss(self, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor], Any, Record]:
        """By the model's own `compute_loss`, which includes penalties."""
        with collect_losses() as record:
            outputs = self.model(batch.x)
            compute_loss: Any = self.model.compute_loss
            mode = {"training": self.model.training} if _takes_mode(compute_loss) else {}
            total = compute_loss(x=batch.x, y=batch.y, y_pred=outputs, sample_weight=batch.weight, **mode)
        return total, [], outputs, record


def sum_of_losses(first: torch.Tensor | None, added: Sequence[torch.Tensor]) -> torch.Tensor:
    """The compiled loss, if there is one, and losses that were added. ValueError where there are none."""
    terms = [*([] if first is None else [first]), *added]
    if not terms:
        raise ValueError("There is no loss: give compile() a loss, or add one (add_loss, a regularizer).")
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _takes_mode(function: Callable[..., Any]) -> bool:
    """Whether a function takes `training`, as Keras's `compute_loss` does since 3.6."""
    parameters = inspect.signature(function).parameters
    return "training" in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


class Step:
    """The step of one model.

    Args:
        model: the module.
        loss: (y, outputs, sample weights) -> scalar (None without a loss of its own), and the loss of each output
            where there are several; None for a model with a `compute_loss` of its own.
        measure: (metric sums, y, outputs, sample weights) -> new sums.
        extra_objects: other objects whose attributes the step depends on.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | None,
        measure: Callable[..., list[Variables]],
        extra_objects: Sequence[Any] = (),
    ):
        self.objective = Objective(model, loss)
        self.measure = measure
        self.extra_objects = extra_objects

    def live_state(self, metrics: list[Variables]) -> State:
        """The state with the model's own parameters, not copies."""
        return State(dict(self.objective.model.named_parameters()), metrics)

    def train(self, state: State, batch: Batch) -> Result:
        """Loss, gradients and new metric sums for one batch; the model's buffers change in place."""
        # Lazy weights, of layers that were never called, have no shape yet.
        trained = {name: one for name, one in state.parameters.items() if one.requires_grad and not is_lazy(one)}
        with torch.enable_grad():
            total, parts, outputs, record = self.objective(batch)
        gradients: Variables = {}
        if total.requires_grad:
            with torch.enable_grad():
                target = total if state.scale_loss is None else state.scale_loss(total)
            found = torch.autograd.grad(target, list(trained.values()), allow_unused=True)
            gradients = {name: g for name, g in zip(trained, found, strict=True) if g is not None}
        with torch.no_grad():
            logs = self.measure(state.metrics, batch.y, outputs, batch.weight)
        updates = [entry.value for entry in record.updates]
        parts = [part.detach() for part in parts]
        return Result(total.detach(), parts, gradients, logs, outputs, updates, record)

    def test(self, state: State, batch: Batch) -> Result:
        """Loss, new metric sums and outputs, without gradients and updates."""
        with torch.no_grad():
            total, parts, outputs, record = self.objective(batch)
            logs = self.measure(state.metrics, batch.y, outputs, batch.weight)
            return Result(total, parts, {}, logs, outputs, [], record)
