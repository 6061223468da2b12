"""Lion: steps of one length, by the sign of the momentum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.optimizers.base import Optimizer
from fanin.optimizers.core import Slots


class Lion(Optimizer):
    """w -= lr sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g.

    Args:
        learning_rate: 0.001 by default; a third to a tenth of Adam's is a good start. See `Optimizer`.
        beta_1: b1 in (0, 1], 0.9 by default.
        beta_2: b2 in [0, 1], 0.99 by default.
        weight_decay: three to ten times Adam's goes with the smaller rate; None, the default, for none.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
        gradient_accumulation_steps, name: see `Optimizer`.

    Slots: momentum. After Keras's `keras.optimizers.Lion`; Chen et al. 2023.

    >>> w = torch.nn.Parameter(torch.tensor([1.0]))
    >>> Lion(0.1).apply([torch.tensor([2.0])], [w])
    >>> round(w.item(), 5)
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
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
        self.beta_1 = arguments.number("beta_1", beta_1, 0.0, 1.0, ends="(]")
        self.beta_2 = arguments.number("beta_2", beta_2, 0.0, 1.0, ends="[]")
        self.groups = [["momentum"]]

    def rule(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """The formula above, in place."""
        momentum = [s["momentum"] for s in slots]
        signs = torch._foreach_mul(momentum, self.beta_1)
        torch._foreach_add_(signs, gradients, alpha=1.0 - self.beta_1)
        torch._foreach_sign_(signs)
        torch._foreach_sub_(weights, torch._foreach_mul(signs, size.to(weights[0].dtype)))
        torch._foreach_mul_(momentum, self.beta_2)
        torch._foreach_add_(momentum, gradients, alpha=1.0 - self.beta_2)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2}
