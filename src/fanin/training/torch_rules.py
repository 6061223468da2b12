"""The updates of torch.optim's SGD, Adam and AdamW: by torch's fused kernels, or in public operations.

The kernels take momentum, betas and weight decay as plain numbers, which a program holds for good. Where a scheduler
changes them at each step, as OneCycleLR does, they are tensors, and the update is that of `decompositions`. So is it on
devices without such kernels, and for weights that are not contiguous.

A rule takes a group's constant options; its numbers as tensors (learning rate, momentum or betas, weight decay); and
lists for its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin.optimizers.core import Slots
from fanin.optimizers.fused import has_kernels, rate_for_kernel
from fanin.program import decompositions

Group = dict[str, Any]


def sgd(
    group: Group, numbers: list[Tensor], weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], first: bool
) -> None:
    """SGD; `first` at the first step with momentum, whose buffers are then set."""
    rate, *changing = numbers
    update, rate = _update("_fused_sgd_", rate, "momentum" in group, weights, slots)
    momentum, decay = (group["momentum"], group["weight_decay"]) if "momentum" in group else changing
    has_buffers = "momentum" not in group or momentum
    update(
        weights, gradients, [s["momentum_buffer"] for s in slots] if has_buffers else [], lr=rate, weight_decay=decay,
        momentum=momentum, dampening=group["dampening"], nesterov=group["nesterov"], maximize=group["maximize"],
        is_first_step=first,
    )  # fmt: skip


def adam(
    group: Group, numbers: list[Tensor], weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], first: bool
) -> None:
    """Adam and AdamW."""
    rate, *changing = numbers
    name = "_fused_adamw_" if group["decoupled_weight_decay"] else "_fused_adam_"
    update, rate = _update(name, rate, "betas" in group, weights, slots)
    beta1, beta2, decay = (*group["betas"], group["weight_decay"]) if "betas" in group else changing
    steps = [s["step"] for s in slots]
    torch._foreach_add_(steps, 1)
    update(
        weights, gradients, [s["exp_avg"] for s in slots], [s["exp_avg_sq"] for s in slots],
        [s["max_exp_avg_sq"] for s in slots] if group["amsgrad"] else [], steps, lr=rate, beta1=beta1, beta2=beta2,
        weight_decay=decay, eps=group["eps"], amsgrad=group["amsgrad"], maximize=group["maximize"],
    )  # fmt: skip


def _update(name: str, rate: Tensor, are_fixed: bool, weights: list[Tensor], slots: list[Slots]) -> tuple[Any, Tensor]:
    """The update function, and the learning rate in the form that it takes."""
    if are_fixed and has_kernels(weights, slots):
        return getattr(torch, name), rate_for_kernel(rate)
    return decompositions.UPDATES_BY_NAME[name], rate
