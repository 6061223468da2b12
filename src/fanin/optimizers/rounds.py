"""One call of an optimizer as a pure function: accumulation, the update, averages.

What a call does depends on counts that only the host knows. They are settled first, as a `Round`; then `play` is made
of torch operations only, so that it can be traced once for each kind of round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fanin.optimizers.core import Slots
from fanin.optimizers.ema import Ema, follow
from fanin.optimizers.per_weight import PerWeight


class Round(NamedTuple):
    """What one call will do: a value, equal for all calls that do the same.

    Attributes:
        is_due: whether it makes an update, and does not only add to accumulated gradients.
        follows: whether averages follow the weights slowly; at first they become the weights.
        overwrites: whether the averages then go into the weights.
        waited: for each weight, whether an earlier call of an accumulation had a gradient for it.
        decayed: for each weight, whether it decays; None for all.
        factors: for each weight, what its learning rate is multiplied by; None for 1.
    """

    is_due: bool = True
    follows: bool = False
    overwrites: bool = False
    waited: tuple[bool, ...] | None = None
    decayed: tuple[bool, ...] | None = None
    factors: tuple[float, ...] | None = None


class Rounds(Ema, PerWeight):
    """The part of an optimizer that says what a call does, does it, and counts it."""

    is_plain: bool
    loss_scale_factor: float | None

    def with_scale(self, loss: Tensor, numbers: Sequence[Tensor | None]) -> Tensor:
        """What gradients are taken of. Only torch operations.

        Args:
            loss: a scalar.
            numbers: what `play` will get.
        """
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    def next_round(self, weights: Sequence[Tensor]) -> Round:
        """What the next call will do with these weights, with or without gradients."""
        steps = self.gradient_accumulation_steps or 1
        is_due = (self._iterations + 1) % steps == 0
        decayed = factors = None
        if self._chooses and is_due:
            decayed = tuple(self.decays(weights)) if len(self._excluded) else None
            factors = tuple(self.factors(weights)) if len(self._factors) else None
        if self.is_plain:
            return Round(decayed=decayed, factors=factors)
        done = self._iterations // steps
        every = self.ema_overwrite_frequency
        return Round(
            is_due,
            self.use_ema and done > 0,
            bool(self.use_ema and every and (done + 1) % every == 0),
            tuple(w in self._waiting and w.requires_grad for w in weights) if is_due and steps > 1 else None,
            decayed,
            factors,
        )

    def play(
        self,
        of: Round,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        slots: Sequence[Slots],
        *numbers: Tensor | None,
    ) -> None:
        """Change weights and slots in place. Only torch operations, nothing read back.

        Args:
            of: what this call does.
            weights: all that the optimizer knows.
            gradients: one for each weight; None leaves a weight alone, but for averages and an accumulation.
            slots: one dict for each weight.
            numbers: size and decay as for `step`; None where no update is due.
        """
        size, decay = numbers
        if self.loss_scale_factor is not None:
            gradients = [None if g is None else g / self.loss_scale_factor for g in gradients]
        accumulates = self.gradient_accumulation_steps is not None
        if accumulates:
            for gradient, slot in zip(gradients, slots, strict=True):
                if gradient is not None:
                    slot["gradient_accumulator"].add_(gradient)
        if of.is_due:
            waited = of.waited or [False] * len(weights)
            chosen = [i for i, g in enumerate(gradients) if g is not None or waited[i]]
            given = [gradients[i] for i in chosen]
            if accumulates:
                sums = [slots[i]["gradient_accumulator"] for i in chosen]
                given = list(torch._foreach_div(sums, self.gradient_accumulation_steps or 1))
            self.step(
                [weights[i] for i in chosen],
                given,  # type: ignore[arg-type]
                [slots[i] for i in chosen],
                size,  # type: ignore[arg-type]
                decay,  # type: ignore[arg-type]
                None if of.decayed is None else [of.decayed[i] for i in chosen],
                None if of.factors is None else [of.factors[i] for i in chosen],
            )
            if accumulates:
                for one in sums:
                    one.zero_()
        if self.use_ema:
            averages = [slot["average"] for slot in slots]
            follow(list(weights), averages, self.ema_momentum if of.follows else 0.0)
            if of.overwrites:
                torch._foreach_copy_(list(weights), averages)

    def count_round(self, of: Round, weights: Sequence[Tensor], has_gradient: Sequence[bool]) -> None:
        """Count a call that was made: which weights wait for an update, and how many calls there were."""
        if self.gradient_accumulation_steps is not None:
            if of.is_due:
                took_part = {
                    id(w) for w, had, wait in zip(weights, has_gradient, of.waited or (), strict=True) if had or wait
                }
                self._drop_gradients([w for w in self._waiting if id(w) not in took_part])  # frozen since
            else:
                for weight, had in zip(weights, has_gradient, strict=True):
                    if had:
                        self._waiting[weight] = True
        self._iterations += 1

    def known_weights(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """These weights; with averages or an accumulation also all others that the optimizer was built for."""
        if self.is_plain:
            return list(weights)
        seen = {id(w) for w in weights}
        others = [w for ref in self._built if (w := ref()) is not None and id(w) not in seen]
        seen |= {id(w) for w in others}
        return [*weights, *others, *(w for w in self._waiting if id(w) not in seen)]
