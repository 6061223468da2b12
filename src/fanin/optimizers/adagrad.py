"""Adagrad: each number of a weight is slowed down by all gradients it ever had."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.optimizers.base import Optimizer
from fanin.optimizers.core import Slots


class Adagrad(Optimizer):
    """a += g^2; w -= lr g / sqrt(a + epsilon).

    Args:
        learning_rate: 0.001 by default; see `Optimizer`.
        initial_accumulator_value: what a begins with, 0 or more, 0.1 by default.
        epsilon: 1e-7 by default, under the root (torch's Adagrad adds 1e-10 outside).
        weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
        loss_scale_factor, gradient_accumulation_steps, name: see `Optimizer`.

    Slots: accumulator. After Keras's `keras.optimizers.Adagrad`; Duchi, Hazan and Singer 2011.

    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> Adagrad(0.5, initial_accumulator_value=12.0).apply([torch.tensor([2.0])], [w])
    >>> round(w.item(), 5)
    0.75
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
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
        self.initial_accumulator_value = arguments.number("initial_accumulator_value", initial_accumulator_value)
        self.epsilon = arguments.number("epsilon", epsilon)
        self.groups = [["accumulator"]]

    def init_slot(self, name: str, weight: Tensor) -> Tensor:
        """As in `Optimizer`, but an accumulator begins with its initial value."""
        if name == "accumulator":
            return torch.full_like(weight, self.initial_accumulator_value, requires_grad=False)
        return super().init_slot(name, weight)

    def rule(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """The formula above, in place."""
        accumulator = [s["accumulator"] for s in slots]
        torch._foreach_addcmul_(accumulator, gradients, gradients, value=1)
        below = torch._foreach_add(accumulator, self.epsilon)
        torch._foreach_sqrt_(below)
        steps = torch._foreach_mul(gradients, size.to(weights[0].dtype))
        torch._foreach_addcdiv_(weights, steps, below, value=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        own = {"initial_accumulator_value": self.initial_accumulator_value, "epsilon": self.epsilon}
        return {**super().get_config(), **own}
