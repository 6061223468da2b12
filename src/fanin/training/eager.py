"""A training step without a program: what the compiled one computes, operation by operation."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from fanin import constraints
from fanin.training.data import Batch
from fanin.training.step import Result, State, Step
from fanin.weights import CONSTRAINTS, each_fact


def train_eagerly(step: Step, state: State, optimizer: Any, batch: Batch) -> Result:
    """One step on the model's own tensors: loss and gradients, the optimizer's update, constraints.

    It trains in inference mode, and on tensors from there, as programs do. The caller holds the model's lock.
    """
    with torch.inference_mode(False):
        batch = Batch(*(pytree.tree_map(_outside_inference, part) for part in batch))
        if isinstance(optimizer, torch.optim.Optimizer):
            result = _torch_step(step, state, optimizer, batch)
        else:
            state.scale_loss = optimizer.scale_loss
            result = step.train(state, batch)
            found = [(state.parameters[name], gradient) for name, gradient in result.gradients.items()]
            given = [(weight, left) for weight, one in found if (left := _as_hooks_leave_it(weight, one)) is not None]
            optimizer.apply([weight for weight, _ in given], [gradient for _, gradient in given])
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
            _run_hooks(parameter)
        results.append(result)
        return float(result.loss) if isinstance(optimizer, torch.optim.LBFGS) else 0.0

    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    else:
        closure()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return results[0]


def _outside_inference(leaf: Any) -> Any:
    """A tensor that autograd can keep; all else as it is."""
    return leaf.clone() if isinstance(leaf, torch.Tensor) and leaf.is_inference() else leaf


def _as_hooks_leave_it(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor | None:
    """The gradient of a weight after the functions of `register_post_accumulate_grad_hook`."""
    if not getattr(weight, "_post_accumulate_grad_hooks", None):
        return gradient
    weight.grad = gradient
    _run_hooks(weight)
    left, weight.grad = weight.grad, None
    return left


def _run_hooks(weight: torch.Tensor) -> None:
    """Call them, as `backward` does: they read and change `weight.grad`, and may take it away."""
    hooks = getattr(weight, "_post_accumulate_grad_hooks", None)
    if hooks and weight.grad is not None:
        for hook in tuple(hooks.values()):
            hook(weight)
