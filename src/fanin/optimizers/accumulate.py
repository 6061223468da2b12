"""Gradient accumulation: the gradients of several calls make one update, so that a large batch may come in parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.optimizers.store import ByWeight, Holder


class Accumulation(Holder):
    """The part of an optimizer that counts, and knows the sums of gradients.

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
        self._iterations = arguments.whole("iterations", value) * (self.gradient_accumulation_steps or 1)
        self._drop_gradients()

    def _drop_gradients(self, weights: Iterable[Tensor] | None = None) -> None:
        """Begin a round anew: nothing waits, and the accumulators of these weights (default: all that wait) are 0."""
        waiting = list(self._waiting if weights is None else weights)
        with torch.no_grad():
            for slots in self.slots(waiting):
                slots["gradient_accumulator"].zero_()
        self._waiting = ByWeight()
