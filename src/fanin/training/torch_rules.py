"""The updates of torch.optim's SGD, Adam and AdamW: by torch's fused kernels, or in public operations.

The kernels take momentum, betas and weight decay as plain numbers, which a program holds for good. Where a scheduler
changes them at each step, as OneCycleLR does, they are tensors, and the formulas those of `decompositions`.

A rule takes a group's options, its numbers (learning rate, momentum or betas, weight decay), and lists for its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin.optimizers.core import Slots
from fanin.program import decompositions

Group = dict[str, Any]


def fused_sgd(
    group: Group, numbers: list[Tensor], weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], first: bool
) -> None:
    """torch's kernel for SGD; `first` where momentum begins."""
    torch._fused_sgd_(
        weights, gradients, [s["momentum_buffer"] for s in slots] if group["momentum"] else [],
        weight_decay=group["weight_decay"], momentum=group["momentum"], lr=numbers[0], dampening=group["dampening"],
        nesterov=group["nesterov"], maximize=group["maximize"], is_first_step=first,
    )  # fmt: skip


def fused_adam(
    group: Group, numbers: list[Tensor], weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], first: bool
) -> None:
    """torch's kernels for Adam and AdamW."""
    steps = [s["step"] for s in slots]
    torch._foreach_add_(steps, 1)
    update = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    beta1, beta2 = group["betas"]
    update(
        weights, gradients, [s["exp_avg"] for s in slots], [s["exp_avg_sq"] for s in slots],
        [s["max_exp_avg_sq"] for s in slots] if group["amsgrad"] else [], steps, lr=numbers[0], beta1=beta1,
        beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=group["amsgrad"],
        maximize=group["maximize"],
    )  # fmt: skip


def sgd(
    group: Group, numbers: list[Tensor], weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], first: bool
) -> None:
    """SGD in public operations; `first` where momentum begins."""
    rate, momentum, decay = numbers
    decompositions.sgd(
        weights, gradients, [s["momentum_buffer"] for s in slots], lr=rate, weight_decay=decay, momentum=momentum,
        dampening=group["dampening"], nesterov=group["nesterov"], maximize=group["maximize"], is_first_step=first,
    )  # fmt: skip


def adam(
    group: Group, numbers: list[Tensor], weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], first: bool
) -> None:
    """Adam and AdamW in public operations."""
    rate, beta1, beta2, decay = numbers
    steps = [s["step"] for s in slots]
    torch._foreach_add_(steps, 1)
    decompositions.adam(
        weights, gradients, [s["exp_avg"] for s in slots], [s["exp_avg_sq"] for s in slots],
        [s["max_exp_avg_sq"] for s in slots] if group["amsgrad"] else [], steps, lr=rate, beta1=beta1, beta2=beta2,
        weight_decay=decay, eps=group["eps"], amsgrad=group["amsgrad"], maximize=group["maximize"],
        is_decoupled=group["decoupled_weight_decay"],
    )  # fmt: skip
