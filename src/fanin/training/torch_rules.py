"""The updates of torch.optim's SGD, Adam and AdamW: by torch's fused kernels, or in public operations.

The kernels take momentum, betas and weight decay as plain numbers, which a program holds for good. Where a scheduler
changes them at each step, as OneCycleLR does, they are tensors, and the formulas those of torch's documentation of
`SGD` and `Adam`. A rule takes a group's options, its numbers (learning rate, momentum or betas, weight decay), and
lists for its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin.optimizers.core import Slots

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
    """b <- momentum b + (1 - dampening) g, or g at first;  w <- w - rate b, with nesterov w - rate (g + momentum b)."""
    for weight, gradient, own in zip(weights, gradients, slots, strict=True):
        rate, momentum, decay = (number.to(weight.dtype) for number in numbers)
        g = (-gradient if group["maximize"] else gradient) + weight * decay
        buffer = own["momentum_buffer"]
        if first:
            buffer.copy_(g)
        else:
            buffer.mul_(momentum).add_(g, alpha=1 - group["dampening"])
        weight.sub_((g + momentum * buffer if group["nesterov"] else buffer) * rate)


def adam(
    group: Group, numbers: list[Tensor], weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], first: bool
) -> None:
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  w <- w - rate m' / (sqrt(v') + eps), with m' = m / (1 - b1^t)
    and v' = v / (1 - b2^t)."""
    rate, beta1, beta2, decay = numbers
    for weight, gradient, own in zip(weights, gradients, slots, strict=True):
        dtype = weight.dtype
        g = -gradient if group["maximize"] else gradient
        if group["decoupled_weight_decay"]:
            weight.mul_((1 - rate * decay).to(dtype))
        else:
            g = g + weight * decay.to(dtype)
        step = own["step"].add_(1).double()
        m = own["exp_avg"].lerp_(g, (1 - beta1).to(dtype))
        v = own["exp_avg_sq"].mul_(beta2.to(dtype)).add_(g * g * (1 - beta2).to(dtype))
        if group["amsgrad"]:
            v = own["max_exp_avg_sq"].copy_(torch.maximum(own["max_exp_avg_sq"], v))
        root, size = (1 - beta2**step).sqrt().to(dtype), (rate / (1 - beta1**step)).to(dtype)
        weight.sub_(m / (v.sqrt() / root + group["eps"]) * size)
