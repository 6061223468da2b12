"""Adamax: Adam with the largest gradient so far in the place of the root of a mean square."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.optimizers.base import Optimizer
from fanin.optimizers.core import Slots


class Adamax(Optimizer):
    """m += (1 - b1)(g - m); u = max(b2 u, |g|); w -= lr / (1 - b1^t) m / (u + epsilon).

    Args:
        learning_rate: 0.001 by default; see `Optimizer`.
        beta_1: b1 in [0, 1), 0.9 by default.
        beta_2: b2 in [0, 1), 0.999 by default.
        epsilon: 1e-7 by default (torch's Adamax adds 1e-8 to |g|).
        weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
        loss_scale_factor, gradient_accumulation_steps, name: see `Optimizer`.

    t is 1 at the first step. Slots: momentum, norm. After Keras's `keras.optimizers.Adamax`; Kingma and Ba 2014.

    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> Adamax(0.1).apply([torch.tensor([2.0])], [w])
    >>> round(w.item(), 5)
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **kwargs,
        )
        self.beta_1 = arguments.number("beta_1", beta_1, 0.0, 1.0)
        self.beta_2 = arguments.number("beta_2", beta_2, 0.0, 1.0)
        self.epsilon = arguments.number("epsilon", epsilon)
        self.groups = [["momentum", "norm"]]

    def size(self, learning_rate: float, step: float) -> float:
        """lr / (1 - b1^t)."""
        return float(learning_rate / (1.0 - self.beta_1**step))

    def rule(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """The formula above, in place."""
        momentum, norm = [s["momentum"] for s in slots], [s["norm"] for s in slots]
        torch._foreach_lerp_(momentum, gradients, 1.0 - self.beta_1)
        torch._foreach_mul_(norm, self.beta_2)
        torch._foreach_maximum_(norm, torch._foreach_abs(gradients))
        steps = torch._foreach_mul(momentum, size.to(weights[0].dtype))
        torch._foreach_addcdiv_(weights, steps, torch._foreach_add(norm, self.epsilon), value=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
