"""Gradient accumulation: the gradients of several calls make one update, so that a large batch may come in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fanin.optimizers.store import ByWeight, Holder


class Accumulation(Holder):
    """The part of an optimizer that counts, sums gradients up, and hands on their mean.

    `_iterations` counts calls of `apply`; `gradient_accumulation_steps` of them are a round, which makes one update.
    Sums are in the slot "gradient_accumulator". A weight takes part in the update if any call of the round had a
    gradient for it; a call that had none counts as 0.
    """

    gradient_accumulation_steps: int | None
    _iterations: int
    _waiting: ByWeight[bool]  # the weights that got a gradient in this round

    @property
    def iterations(self) -> int:
        """How many updates were made. To assign it drops the gradients of an unfinished round."""
        return self._iterations // (self.gradient_accumulation_steps or 1)

    @iterations.setter
    def iterations(self, value: Any) -> None:
        if isinstance(value, bool) or int(value) != value or value < 0:
            raise ValueError(f"iterations must be a whole number of 0 or more, found {value!r}.")
        self._iterations = int(value) * (self.gradient_accumulation_steps or 1)
        self._drop_gradients()

    def _accumulate(self, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for slots, gradient in zip(self.slots(weights), gradients, strict=True):
                slots["gradient_accumulator"].add_(gradient)
        for weight in weights:
            self._waiting[weight] = True

    def _mean_gradients(self, given: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The weights that wait, with the means of their gradients; the accumulators begin anew.

        A weight that was frozen since it got a gradient is left out, unless it is among those `given` now.
        """
        now = {id(w) for w in given}
        weights = [w for w in self._waiting if w.requires_grad or id(w) in now]
        sums = [slots["gradient_accumulator"] for slots in self.slots(weights)]
        with torch.no_grad():
            means = torch._foreach_div(sums, self.gradient_accumulation_steps or 1)
        self._drop_gradients()
        return weights, list(means)

    def _drop_gradients(self) -> None:
        weights = list(self._waiting)
        with torch.no_grad():
            for slots in self.slots(weights):
                slots["gradient_accumulator"].zero_()
        self._waiting = ByWeight()
