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

    It also works in inference mode, and on tensors from there, as programs do. The caller holds the model's lock.
    """
    with torch.inference_mode(False):
        batch = Batch(*(pytree.tree_map(_outside_inference, part) for part in batch))
        if isinstance(optimizer, torch.optim.Optimizer):
            result = _torch_step(step, state, optimizer, batch)
        else:
            state.scale_loss = optimizer.scale_loss
            result = step.train(state, batch)
            found = [(state.parameters[name], gradient) for name, gradient in result.gradients.items()]
            pairs = [(weight, final) for weight, one in found if (final := _after_hooks(weight, one)) is not None]
            optimizer.apply([weight for weight, _ in pairs], [gradient for _, gradient in pairs])
        model = step.objective.model
        if any(True for _ in each_fact(model, CONSTRAINTS)):
            constraints.apply(model)
        return result


def _torch_step(step: Step, state: State, optimizer: torch.optim.Optimizer, batch: Batch) -> Result:
    """The step with a torch optimizer, which reads `.grad`; LBFGS evaluates the closure several times.

    Weights that the optimizer holds but the model does not, on which the loss may depend, train too.
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
    """A clone of an inference tensor, which autograd can save; everything else as it is."""
    return leaf.clone() if isinstance(leaf, torch.Tensor) and leaf.is_inference() else leaf


def _after_hooks(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor | None:
    """The gradient of a weight after the functions of `register_post_accumulate_grad_hook`."""
    if not getattr(weight, "_post_accumulate_grad_hooks", None):
        return gradient
    weight.grad = gradient
    _run_hooks(weight)
    final, weight.grad = weight.grad, None
    return final


def _run_hooks(weight: torch.Tensor) -> None:
    """Call a weight's hooks, as `backward` does: they read, change or delete `weight.grad`."""
    hooks = getattr(weight, "_post_accumulate_grad_hooks", None)
    if hooks and weight.grad is not None:
        for hook in tuple(hooks.values()):
            hook(weight)
