"""Nadam: Adam with Nesterov's momentum, on a momentum that grows with the steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.optimizers.base import Optimizer
from fanin.optimizers.core import Slots

_DECAY = 0.96  # of the distance of a step's momentum from b1
_TERMS = range(1, 51)  # as many as a float64 can tell: 0.48^50 < 1e-15


class Nadam(Optimizer):
    """m += (1 - b1)(g - m); v += (1 - b2)(g^2 - v); w -= lr M / (sqrt(v / (1 - b2^t)) + epsilon), with

    ::

        M = u(t + 1) m / (1 - U(t + 1)) + (1 - u(t)) g / (1 - U(t))
        u(t) = b1 (1 - 0.96^t / 2)
        U(t) = u(1) u(2) ... u(t)

    Args:
        learning_rate: 0.001 by default; see `Optimizer`.
        beta_1: b1 in [0, 1), 0.9 by default.
        beta_2: b2 in [0, 1), 0.999 by default.
        epsilon: 1e-7 by default.
        weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
        loss_scale_factor, gradient_accumulation_steps, name: see `Optimizer`.

    t is 1 at the first step. Slots: momentum, velocity. Keras's files hold U(t) too, as a last scalar u_product: it is
    written there, and worked out from t when read. After Keras's `keras.optimizers.Nadam`; Dozat 2016.

    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> Nadam(0.1, beta_1=0.0).apply([torch.tensor([2.0])], [w])
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
        self.groups = [["momentum", "velocity"]]

    def size(self, learning_rate: float, step: float) -> tuple[float, float, float]:
        """What m, g and sqrt(v) are multiplied by."""
        now, then = (self.beta_1 * (1.0 - 0.5 * _DECAY**t) for t in (step, step + 1.0))
        product = self.beta_1**step * _product(step)
        of_momentum = learning_rate * then / (1.0 - product * then)
        of_gradient = learning_rate * (1.0 - now) / (1.0 - product)
        of_root: float = (1.0 - self.beta_2**step) ** -0.5
        return of_momentum, of_gradient, of_root

    def scaled(self, size: Tensor, factor: float) -> Tensor:
        """The learning rate is in the first two numbers."""
        return torch.cat([size[:2] * factor, size[2:]])

    def rule(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """The formula above, in place."""
        momentum, velocity = [s["momentum"] for s in slots], [s["velocity"] for s in slots]
        of_momentum, of_gradient, of_root = size.to(weights[0].dtype).unbind()
        torch._foreach_lerp_(momentum, gradients, 1.0 - self.beta_1)
        torch._foreach_mul_(velocity, self.beta_2)
        torch._foreach_addcmul_(velocity, gradients, gradients, value=1.0 - self.beta_2)
        steps = torch._foreach_mul(momentum, of_momentum)
        torch._foreach_add_(steps, torch._foreach_mul(gradients, of_gradient))
        below = torch._foreach_mul(torch._foreach_sqrt(velocity), of_root)
        torch._foreach_add_(below, self.epsilon)
        torch._foreach_addcdiv_(weights, steps, below, value=-1)

    def derived(self) -> dict[str, float]:
        """U(t), the last scalar of Keras's files."""
        step = float(self.iterations)
        return {"u_product": self.beta_1**step * _product(step)}

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


def _product(step: float) -> float:
    """(1 - 0.96 / 2) (1 - 0.96^2 / 2) ... (1 - 0.96^t / 2), from the series of its logarithm.

    ln(1 - x) = -(x + x^2 / 2 + ...): summed over the steps, each power k gives a geometric series.
    """
    shares = ((0.5 * _DECAY) ** k / (k * (1.0 - _DECAY**k)) * (_DECAY ** (k * step) - 1.0) for k in _TERMS)
    return math.exp(sum(shares))
