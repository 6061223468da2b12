"""Moving averages of the weights (EMA): a second set of weights that follows the first more smoothly."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fanin.optimizers.accumulate import Accumulation


def follow(weights: list[Tensor], averages: list[Tensor], momentum: float) -> None:
    """average = momentum average + (1 - momentum) weight, in place; only torch operations."""
    torch._foreach_lerp_(averages, weights, 1.0 - momentum)


class Ema(Accumulation):
    """The part of an optimizer that averages weights, in the slot "average". See `Optimizer` for its arguments.

    An average begins as its weight, and is the weight itself after the first update. It takes part in every call of
    `apply`, before constraints, and for every weight the optimizer knows, also one without a gradient.
    """

    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None

    def init_slot(self, name: str, weight: Tensor) -> Tensor:
        """As in `Update`, but an average begins as its weight."""
        return weight.detach().clone() if name == "average" else super().init_slot(name, weight)

    def finalize_variable_values(self, var_list: Iterable[Tensor]) -> None:
        """Put the averages into the weights, as at the end of training; nothing without `use_ema` or before a step.

        Args:
            var_list: the weights.
        """
        weights = list(var_list)
        if self.use_ema and self.iterations and weights:
            with torch.no_grad():
                torch._foreach_copy_(weights, [slots["average"] for slots in self.slots(weights)])
