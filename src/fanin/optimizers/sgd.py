"""Stochastic gradient descent, plain, with momentum, or Nesterov's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.optimizers.base import Optimizer
from fanin.optimizers.core import Slots


class SGD(Optimizer):
    """w -= lr g; with momentum m: v = m v - lr g, and w += v, or for Nesterov w += m v - lr g.

    Args:
        learning_rate: 0.01 by default; see `Optimizer`.
        momentum: in [0, 1], 0 by default. The rate is inside v, so a change of it does not touch what v holds
            (torch's SGD has it outside).
        nesterov: False by default.
        weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
        loss_scale_factor, gradient_accumulation_steps, name: see `Optimizer`.

    Slots: momentum, unless it is 0. After Keras's `keras.optimizers.SGD`.

    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> SGD(0.1).apply([torch.tensor([2.0])], [w])
    >>> w.item()
    0.800000011920929
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
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
        self.momentum = arguments.number("momentum", momentum, 0.0, 1.0, ends="[]")
        self.nesterov = arguments.flag("nesterov", nesterov)
        self.groups = [["momentum"]] if self.momentum else []

    def rule(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """The formula above, in place."""
        sizes = [size.to(weights[0].dtype)] * len(weights)
        if not self.momentum:
            torch._foreach_addcmul_(weights, gradients, sizes, value=-1)
            return
        velocity = [s["momentum"] for s in slots]
        torch._foreach_mul_(velocity, self.momentum)
        torch._foreach_addcmul_(velocity, gradients, sizes, value=-1)
        if self.nesterov:
            torch._foreach_addcmul_(weights, gradients, sizes, value=-1)
            torch._foreach_add_(weights, velocity, alpha=self.momentum)
        else:
            torch._foreach_add_(weights, velocity)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}
