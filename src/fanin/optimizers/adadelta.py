"""Adadelta: steps in the units of the weight, from the sizes of the gradients and of the steps before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.optimizers.base import Optimizer
from fanin.optimizers.core import Slots


class Adadelta(Optimizer):
    """a = rho a + (1 - rho) g^2; d = g sqrt(b + epsilon) / sqrt(a + epsilon); b = rho b + (1 - rho) d^2; w -= lr d.

    Args:
        learning_rate: 0.001 by default (1 in the paper and in torch); see `Optimizer`.
        rho: in [0, 1), 0.95 by default.
        epsilon: 1e-7 by default.
        weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
        loss_scale_factor, gradient_accumulation_steps, name: see `Optimizer`.

    Slots: accumulated_grad, accumulated_delta_var. After Keras's `keras.optimizers.Adadelta`; Zeiler 2012.

    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> Adadelta(0.5, rho=0.75, epsilon=1.0).apply([torch.tensor([4.0])], [w])
    >>> round(w.item(), 5)
    0.10557
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.95,
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
        self.rho = arguments.number("rho", rho, 0.0, 1.0)
        self.epsilon = arguments.number("epsilon", epsilon)
        self.groups = [["accumulated_grad", "accumulated_delta_var"]]

    def rule(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """The formula above, in place."""
        squares, deltas = [s["accumulated_grad"] for s in slots], [s["accumulated_delta_var"] for s in slots]
        torch._foreach_mul_(squares, self.rho)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - self.rho)
        steps = torch._foreach_mul(torch._foreach_sqrt(torch._foreach_add(deltas, self.epsilon)), gradients)
        torch._foreach_div_(steps, torch._foreach_sqrt(torch._foreach_add(squares, self.epsilon)))
        torch._foreach_mul_(deltas, self.rho)
        torch._foreach_addcmul_(deltas, steps, steps, value=1.0 - self.rho)
        torch._foreach_sub_(weights, torch._foreach_mul(steps, size.to(weights[0].dtype)))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon}
