"""Decompositions of PyTorch's fused optimizer updates into public operations, for compilers without the fused ones.

Momentum, betas and weight decay may be 0-dim float64 tensors, for numbers that change from step to step.

Sources: Kingma and Ba 2014 (Adam), Loshchilov and Hutter 2019 (AdamW); momentum as torch.optim.SGD defines it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fanin.dtypes import widest_float
from fanin.program.effects import aten

Tensors = list[Tensor]
Number = float | Tensor


def _is_nonzero(number: Number) -> bool:
    """Whether a number is, or may be, other than 0."""
    return isinstance(number, Tensor) or bool(number)


def adam(
    weights: Tensors, gradients: Tensors, averages: Tensors, squares: Tensors, largest: Tensors, steps: Tensors, *,
    lr: Tensor, beta1: Number, beta2: Number, weight_decay: Number, eps: float, amsgrad: bool, maximize: bool,
    is_decoupled: bool = False, **_: Any,
) -> None:  # fmt: skip
    """m += (1 - b1)(g - m); v = b2 v + (1 - b2) g^2; w -= lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)."""
    for place, (w, g, m, v, t) in enumerate(zip(weights, gradients, averages, squares, steps, strict=True)):
        rate = lr.to(w.dtype)
        g = -g if maximize else g
        if is_decoupled:
            w.mul_(1 - rate * weight_decay)
        elif _is_nonzero(weight_decay):
            g = g + weight_decay * w
        m.add_((g - m) * (1 - beta1))
        v.mul_(beta2).add_(g * g * (1 - beta2))
        if amsgrad:
            v = largest[place].copy_(torch.maximum(largest[place], v))
        count = t.to(widest_float(t.device))
        first, second = (1 - beta1**count).to(w.dtype), (1 - beta2**count).to(w.dtype)
        w.sub_(rate / first * m / ((v / second).sqrt() + eps))


def adamw(*tensors: Any, **options: Any) -> None:
    """As `adam`, with weight decay decoupled: w -= lr weight_decay w before the step."""
    adam(*tensors, is_decoupled=True, **options)


def sgd(
    weights: Tensors, gradients: Tensors, momenta: Tensors, *, lr: Tensor, weight_decay: Number, momentum: Number,
    dampening: float, nesterov: bool, maximize: bool, is_first_step: bool, **_: Any,
) -> None:  # fmt: skip
    """b = momentum b + (1 - dampening) g, b = g at first; w -= lr b, or lr (g + momentum b) with nesterov; in place."""
    for place, (w, g) in enumerate(zip(weights, gradients, strict=True)):
        g = -g if maximize else g
        g = g + weight_decay * w if _is_nonzero(weight_decay) else g
        if _is_nonzero(momentum):
            b = momenta[place]
            if is_first_step:
                b.copy_(g)
            else:
                b.mul_(momentum).add_(g, alpha=1 - dampening)
            g = g + momentum * b if nesterov else b
        w.sub_(lr.to(w.dtype) * g)


# name of torch's private fused operation -> its decomposition; the same by operation
UPDATES_BY_NAME: dict[str, Callable[..., None]] = {"_fused_adam_": adam, "_fused_adamw_": adamw, "_fused_sgd_": sgd}
UPDATES: dict[Any, Callable[..., None]] = {
    getattr(aten, name).tensor_lr: decomposition
    for name, decomposition in UPDATES_BY_NAME.items()
    if hasattr(aten, name)
}
