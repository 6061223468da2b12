"""RMSprop, plain, with momentum, or centered."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.optimizers.base import Optimizer
from fanin.optimizers.core import Slots


class RMSprop(Optimizer):
    """v = rho v + (1 - rho) g^2; w -= lr g / sqrt(v + epsilon).

    Centered, v is replaced by v - a^2 under the root, with a = rho a + (1 - rho) g. With momentum m, b = m b + step
    and w -= b.

    Args:
        learning_rate: 0.001 by default; see `Optimizer`.
        rho: in [0, 1), 0.9 by default.
        momentum: in [0, 1], 0 by default.
        epsilon: 1e-7 by default, under the root (torch's RMSprop adds 1e-8 outside).
        centered: False by default.
        weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
        loss_scale_factor, gradient_accumulation_steps, name: see `Optimizer`.

    Slots: velocity, momentum unless it is 0, average_gradient if centered. v - a^2 is kept from falling below 0 by
    rounding, where Keras gives NaN. After Keras's `keras.optimizers.RMSprop`; Hinton 2012.

    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> RMSprop(0.1, rho=0.75).apply([torch.tensor([2.0])], [w])
    >>> round(w.item(), 5)
    0.8
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
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
        self.momentum = arguments.number("momentum", momentum, 0.0, 1.0, ends="[]")
        self.epsilon = arguments.number("epsilon", epsilon)
        self.centered = arguments.flag("centered", centered)
        self.groups = [["velocity"], *([["momentum"]] if momentum else []), *([["average_gradient"]] * centered)]

    def rule(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """The formula above, in place."""
        velocity = [s["velocity"] for s in slots]
        torch._foreach_mul_(velocity, self.rho)
        torch._foreach_addcmul_(velocity, gradients, gradients, value=1.0 - self.rho)
        below: Any = velocity
        if self.centered:
            average = [s["average_gradient"] for s in slots]
            torch._foreach_lerp_(average, gradients, 1.0 - self.rho)
            below = torch._foreach_clamp_min(torch._foreach_addcmul(velocity, average, average, value=-1), 0.0)
        below = torch._foreach_add(below, self.epsilon)
        torch._foreach_sqrt_(below)
        steps = torch._foreach_mul(gradients, size.to(weights[0].dtype))
        if self.momentum:
            momentum = [s["momentum"] for s in slots]
            torch._foreach_mul_(momentum, self.momentum)
            torch._foreach_addcdiv_(momentum, steps, below)
            torch._foreach_sub_(weights, momentum)
        else:
            torch._foreach_addcdiv_(weights, steps, below, value=-1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        own = {"rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon, "centered": self.centered}
        return {**super().get_config(), **own}
