"""The pure part of an optimizer: an update of weights and slots, only torch operations on what it is given.

::

    gradients --clip--> g      w -= w * weight_decay * lr      rule(w, g, slots, size)      size: the step's length

Slots are tensors shaped like a weight: momentum, velocity. Nothing here counts steps or remembers a weight's slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from fanin.optimizers.clip import clip_global_norm, clip_norms, clip_values

Slots = dict[str, Tensor]
Alike = tuple[torch.device, torch.dtype, float]


class Update:
    """One update in place. A subclass names its slots and writes `rule`, and `size` if a step is not just the rate.

    Attributes:
        groups: the slots in the order of Keras's files: a group is written weight by weight, then comes the next.
        first_groups: slots that the rule does not know, before those: averages of weights, accumulated gradients.
        weight_decay, clipnorm, clipvalue, global_clipnorm: see `Optimizer`.
    """

    groups: Sequence[Sequence[str]] = ()
    first_groups: Sequence[Sequence[str]] = ()
    weight_decay: float | None = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None

    def slot_names(self) -> list[str]:
        """The names of the slots of a weight, as Keras names them."""
        return [name for group in (*self.first_groups, *self.groups) for name in group]

    def init_slots(self, weight: Tensor) -> Slots:
        """Every slot of `weight` as it is before the first step: its shape, dtype, device and layout."""
        if is_lazy(weight):
            raise ValueError("This weight has no shape yet: call its layer once before building the optimizer.")
        with torch.inference_mode(False), torch.no_grad():
            return {name: self.init_slot(name, weight) for name in self.slot_names()}

    def init_slot(self, name: str, weight: Tensor) -> Tensor:
        """One slot: zeros, unless a subclass starts elsewhere."""
        return torch.zeros_like(weight, requires_grad=False)

    def size(self, learning_rate: float, step: float) -> float | tuple[float, ...]:
        """The length of step number `step` (1 is the first): the learning rate, unless a subclass corrects it.

        A rule that needs several numbers gets a tuple of them from here; see `scaled`.
        """
        return learning_rate

    def scaled(self, size: Tensor, factor: float) -> Tensor:
        """The size of the same step at `factor` times the learning rate."""
        return size * factor

    def scalars(self, learning_rate: float, step: float) -> tuple[float | tuple[float, ...], float]:
        """What `step` takes as tensors: the size of the step, and the factor 1 - learning_rate * weight_decay."""
        return self.size(learning_rate, step), 1.0 - learning_rate * (self.weight_decay or 0.0)

    def rule(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """Change weights and slots in place by clipped gradients. Written by the subclass.

        Args:
            weights, gradients: tensors of one device and dtype.
            slots: one dict for each weight.
            size: 0-dim, or 1-dim where `size` gives a tuple; on that device.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define rule().")

    def step(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        slots: list[Slots],
        size: Tensor,
        decay: Tensor,
        decayed: Sequence[bool] | None = None,
        factors: Sequence[float] | None = None,
    ) -> None:
        """One update in place, from what `scalars` gave: clip the gradients, decay the weights, apply the rule.

        Args:
            weights: changed in place.
            gradients: one for each weight, of its shape; not changed.
            slots: one dict for each weight, as `init_slots` made them; changed in place.
            size: 0-dim, the size of the step; 1-dim where it is a tuple.
            decay: 0-dim, the factor of weight decay.
            decayed: which weights decay; None for all.
            factors: what each weight's learning rate is multiplied by; None for 1.

        Only torch operations, nothing read back: it can be traced. Runs in the caller's grad mode.
        """
        gradients = [_fit(g, w) for g, w in zip(gradients, weights, strict=True)]
        if self.clipvalue is not None:
            gradients = clip_values(gradients, self.clipvalue)
        elif self.clipnorm is not None:
            gradients = clip_norms(gradients, self.clipnorm)
        elif self.global_clipnorm is not None:
            gradients = clip_global_norm(gradients, self.global_clipnorm)
        if factors is None and len({(w.device, w.dtype) for w in weights}) == 1:
            self._step_alike(weights, gradients, slots, size, decay, decayed)
            return
        for (device, _, factor), places in _alike(weights, factors).items():
            self._step_alike(
                [weights[i] for i in places],
                [gradients[i] for i in places],
                [slots[i] for i in places],
                size.to(device),
                decay.to(device),
                None if decayed is None else [decayed[i] for i in places],
                factor,
            )

    def _step_alike(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        slots: list[Slots],
        size: Tensor,
        decay: Tensor,
        decayed: Sequence[bool] | None,
        factor: float = 1.0,
    ) -> None:
        """The same for clipped gradients, and weights of one device, dtype and factor."""
        if factor != 1:
            size, decay = self.scaled(size, factor), 1.0 - (1.0 - decay) * factor
        if self.weight_decay is not None:
            chosen = weights if decayed is None else [w for w, yes in zip(weights, decayed, strict=True) if yes]
            if chosen:
                torch._foreach_mul_(chosen, decay)
        self.rule(weights, gradients, slots, size)


def _fit(gradient: Tensor, weight: Tensor) -> Tensor:
    """A gradient as the rules need it: dense, in the dtype of its weight, and contiguous if that is."""
    if gradient.layout is not torch.strided:
        gradient = gradient.to_dense()
    if gradient.dtype != weight.dtype:
        gradient = gradient.to(weight.dtype)
    return gradient if gradient.is_contiguous() else gradient.contiguous()


def _alike(weights: Sequence[Tensor], factors: Sequence[float] | None) -> dict[Alike, list[int]]:
    """The places of weights that go through a rule together: of one device, dtype and factor."""
    groups: dict[Alike, list[int]] = {}
    for place, weight in enumerate(weights):
        factor = 1.0 if factors is None else factors[place]
        groups.setdefault((weight.device, weight.dtype, factor), []).append(place)
    return groups
