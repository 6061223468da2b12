"""Adam and AdamW, in Keras's form: the bias corrections are in the size of the step, epsilon is "epsilon hat"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.optimizers.base import Optimizer
from fanin.optimizers.core import Slots
from fanin.optimizers.fused import has_kernels, rate_for_kernel

_FOREVER = 1e9  # a step number at which torch's own bias corrections are 1, so that only ours count


class Adam(Optimizer):
    """m += (1 - b1)(g - m); v += (1 - b2)(g^2 - v); w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon).

    Args:
        learning_rate: 0.001 by default; see `Optimizer`.
        beta_1: b1 in [0, 1), 0.9 by default.
        beta_2: b2 in [0, 1), 0.999 by default.
        epsilon: 1e-7 by default, added after the corrections ("epsilon hat"); torch's Adam adds 1e-8 before them.
        amsgrad: divide by the largest v so far; False by default.
        weight_decay, clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency,
        loss_scale_factor, gradient_accumulation_steps, name: see `Optimizer`.

    t is 1 at the first step. Slots: momentum, velocity, and velocity_hat with amsgrad. After Keras's
    `keras.optimizers.Adam`; Kingma and Ba 2014, Reddi et al. 2018.

    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> Adam(0.1).apply([torch.tensor([2.0])], [w])
    >>> round(w.item(), 5)
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
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
        self.amsgrad = arguments.flag("amsgrad", amsgrad)
        self.groups = [["momentum", "velocity"], ["velocity_hat"]] if amsgrad else [["momentum", "velocity"]]
        self._corrected = max(self.beta_1, self.beta_2) ** _FOREVER < 1e-20

    def size(self, learning_rate: float, step: float) -> float:
        """lr sqrt(1 - b2^t) / (1 - b1^t)."""
        return float(learning_rate * (1.0 - self.beta_2**step) ** 0.5 / (1.0 - self.beta_1**step))

    def rule(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """The formula above, in place: torch's fused kernel where it computes just that, else `plain`."""
        if not self._corrected or not hasattr(torch, "_fused_adam_") or not has_kernels(weights, slots):
            self.plain(weights, gradients, slots, size)
            return
        forever = torch.full((), _FOREVER, dtype=torch.float32, device=weights[0].device)
        torch._fused_adam_(
            weights,
            gradients,
            [s["momentum"] for s in slots],
            [s["velocity"] for s in slots],
            [s["velocity_hat"] for s in slots] if self.amsgrad else [],
            [forever] * len(weights),
            lr=rate_for_kernel(size),
            beta1=self.beta_1,
            beta2=self.beta_2,
            weight_decay=0.0,
            eps=self.epsilon,
            amsgrad=self.amsgrad,
            maximize=False,
        )

    def plain(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """The same in public operations: any device, dtype and layout."""
        for weight, g, slot in zip(weights, gradients, slots, strict=True):
            m, v = slot["momentum"], slot["velocity"]
            m.lerp_(g, 1.0 - self.beta_1)
            v.mul_(self.beta_2).addcmul_(g, g, value=1.0 - self.beta_2)
            if self.amsgrad:
                v = slot["velocity_hat"].copy_(torch.maximum(slot["velocity_hat"], v))
            weight.sub_(m / (v.sqrt() + self.epsilon) * size.to(weight.dtype))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon, "amsgrad": self.amsgrad}
        return {**super().get_config(), **own}


class AdamW(Adam):
    """Adam with weight decay: w -= lr weight_decay w before each of Adam's steps.

    Args:
        learning_rate: 0.001 by default; see `Optimizer`.
        weight_decay: 0.004 by default, on all weights (see `exclude_from_weight_decay`); None is a ValueError.
        beta_1, beta_2, epsilon, amsgrad: see `Adam`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
        gradient_accumulation_steps, name: see `Optimizer`.

    After Keras's `keras.optimizers.AdamW`; Loshchilov and Hutter 2019.

    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> AdamW(0.1, weight_decay=0.5).apply([torch.tensor([2.0])], [w])
    >>> round(w.item(), 5)
    0.85
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
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
        if weight_decay is None:
            raise ValueError("AdamW: weight_decay must be a number, found None. Use Adam to go without.")
        super().__init__(
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            amsgrad,
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
