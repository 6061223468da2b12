"""A training step without a program: what the compiled one computes, operation by operation."""

from __future__ import annotations

from typing import Any

import torch

from fanin import constraints
from fanin.training.data import Batch
from fanin.training.locks import lock_of
from fanin.training.step import Result, State, Step
from fanin.weights import CONSTRAINTS, each_fact


def train_eagerly(step: Step, state: State, optimizer: Any, batch: Batch) -> Result:
    """One step on the model's own tensors: loss and gradients, the optimizer's update, constraints."""
    with lock_of(step.objective.model):
        if isinstance(optimizer, torch.optim.Optimizer):
            result = _torch_step(step, state, optimizer, batch)
        else:
            state.scale_loss = optimizer.scale_loss
            result = step.train(state, batch)
            names = list(result.gradients)
            optimizer.apply([state.parameters[name] for name in names], [result.gradients[name] for name in names])
        model = step.objective.model
        if any(True for _ in each_fact(model, CONSTRAINTS)):
            constraints.apply(model)
        return result


def _torch_step(step: Step, state: State, optimizer: torch.optim.Optimizer, batch: Batch) -> Result:
    """A torch optimizer steps outside, on `.grad`; one like LBFGS may ask for the step several times.

    It may have weights that the model has not, but that the loss depends on: they train too.
    """
    known = {id(parameter) for parameter in state.parameters.values()}
    held = [weight for group in optimizer.param_groups for weight in group["params"] if id(weight) not in known]
    state.parameters |= {f"of the optimizer, {place}": weight for place, weight in enumerate(held)}
    results: list[Result] = []

    def closure() -> float:
        result = step.train(state, batch)
        for name, parameter in state.parameters.items():
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
