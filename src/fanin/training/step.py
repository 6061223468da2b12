"""What one training step computes: a pure function of state and batch.

This is the function that is compiled. It knows one model and one loss; it changes nothing outside its results, and all
that it depends on comes in as `State` and `Batch`.
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
from fanin.layers.scope import Record, collect_losses
from fanin.training.data import Batch
from fanin.training.swapped import swapped

Variables = dict[str, torch.Tensor]
Loss = Callable[[Any, Any, Any], tuple[torch.Tensor | None, list[torch.Tensor]]]


@dataclass
class State:
    """What a step reads.

    Attributes:
        parameters: name -> tensor; those with `requires_grad` get a gradient.
        buffers: name -> tensor, such as moving averages.
        metrics: the running sums of each metric.
        scale_loss: what makes of a loss the scalar that gradients are taken of; None for the loss itself.
    """

    parameters: Variables
    buffers: Variables = field(default_factory=dict)
    metrics: list[Variables] = field(default_factory=list)
    scale_loss: Callable[[torch.Tensor], torch.Tensor] | None = None


@dataclass
class Result:
    """What a step returns.

    Attributes:
        loss: loss, activity penalties, added losses, weight penalties; not scaled.
        parts: the loss of each output, where there are several.
        gradients: name -> gradient of the scaled loss for each trainable parameter that it depends on.
        buffers: the new buffers.
        logs: the new running sums of each metric.
        outputs: what the model returned.
        updates: the updates that the call added, to run after the optimizer's.
    """

    loss: torch.Tensor
    parts: list[torch.Tensor]
    gradients: Variables
    buffers: Variables
    logs: list[Variables]
    outputs: Any
    updates: list[Any]


class Objective(nn.Module):
    """The model together with its loss: batch -> (scalar, losses of the outputs, outputs, what the call recorded)."""

    def __init__(self, model: nn.Module, loss: Loss | None):
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor], Any, Record]:
        """The loss, plus what layers added, plus the penalties on weights."""
        if self.loss is None:
            return self._by_model(batch)
        with collect_losses() as record:
            outputs = self.model(batch.x)
        first, parts = self.loss(batch.y, outputs, batch.weight)
        added = [*(entry.value for entry in record.losses), *regularizers.penalties(self.model)]
        return sum_of_losses(first, added), parts, outputs, record

    def _by_model(self, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor], Any, Record]:
        """As the model's own `compute_loss` says, which covers penalties too."""
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
        beside: objects other than the model whose attributes these read.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | None,
        measure: Callable[..., list[Variables]],
        beside: Sequence[Any] = (),
    ):
        self.objective = Objective(model, loss)
        self.measure = measure
        self.beside = beside

    def live_state(self, metrics: list[Variables]) -> State:
        """The state that the model holds now: its own tensors, not copies."""
        model = self.objective.model
        return State(dict(model.named_parameters()), dict(model.named_buffers()), metrics)

    def train(self, state: State, batch: Batch) -> Result:
        """Loss, gradients, new buffers and new metric sums for one batch. Pure: buffers in `state` stay as they are."""
        buffers = {name: buffer.clone() for name, buffer in state.buffers.items()}
        call = self._call_with(state.parameters, buffers)
        return self._differentiate(call, state, buffers, batch)

    def train_live(self, state: State, batch: Batch) -> Result:
        """As `train` on the model's own tensors: nothing is swapped or copied, buffers change in place."""
        return self._differentiate(self.objective, state, state.buffers, batch)

    def test(self, state: State, batch: Batch) -> Result:
        """Loss, new metric sums and outputs, without gradients, buffers and updates."""
        with torch.no_grad():
            total, parts, outputs, _ = self.objective(batch)
            logs = self.measure(state.metrics, batch.y, outputs, batch.weight)
            return Result(total, parts, {}, {}, logs, outputs, [])

    def _call_with(self, parameters: Variables, buffers: Variables) -> Callable[[Batch], Any]:
        model, given = self.objective.model, {**parameters, **buffers}
        own = (*model.named_parameters(), *model.named_buffers())
        stands_in = {id(tensor): given[name] for name, tensor in own if name in given}

        def call(batch: Batch) -> Any:
            with swapped(model, stands_in):
                return self.objective(batch)

        return call

    def _differentiate(
        self,
        call: Callable[[Batch], Any],
        state: State,
        buffers: Variables,
        batch: Batch,
    ) -> Result:
        # A layer that no call has reached yet has weights without a shape.
        trained = {name: one for name, one in state.parameters.items() if one.requires_grad and not is_lazy(one)}
        with torch.enable_grad():
            total, parts, outputs, record = call(batch)
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
        return Result(total.detach(), parts, gradients, buffers, logs, outputs, updates)
