"""The pure part of an optimizer: an update of weights and slots, only torch operations on what it is given.

::

    gradients --clip--> g      w -= w * weight_decay * lr      rule(w, g, slots, size)      size: the step's length

Slots are tensors shaped like a weight: momentum, velocity. Nothing here counts steps or remembers a weight's slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from fanin.optimizers.clip import clip_global_norm, clip_norms, clip_values

Slots = dict[str, Tensor]
Number = TypeVar("Number", float, Tensor)


class Update:
    """One update in place. A subclass names its slots and writes `rule`, and `size` if a step is not just the rate.

    Attributes:
        groups: the slots in the order of Keras's files: a group is written weight by weight, then comes the next.
        weight_decay, clipnorm, clipvalue, global_clipnorm: see `Optimizer`.
    """

    groups: Sequence[Sequence[str]] = ()
    weight_decay: float | None = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None

    def slot_names(self) -> list[str]:
        """The names of the slots of a weight, as Keras names them."""
        return [name for group in self.groups for name in group]

    def init_slots(self, weight: Tensor) -> Slots:
        """Zeros for every slot of `weight`: its shape, dtype, device and layout."""
        if is_lazy(weight):
            raise ValueError("This weight has no shape yet: call its layer once before building the optimizer.")
        with torch.inference_mode(False), torch.no_grad():
            return {name: torch.zeros_like(weight, requires_grad=False) for name in self.slot_names()}

    def size(self, learning_rate: Number, step: Number) -> Number:
        """The length of step number `step` (1 is the first): the learning rate, unless a subclass corrects it."""
        return learning_rate

    def scalars(self, learning_rate: Number, step: Number) -> tuple[Number, Number]:
        """What `step` needs of the two numbers: its size, and the factor 1 - learning_rate * weight_decay.

        Plain floats give floats, so that a loop can work them out on the host; 0-dim tensors give tensors.
        """
        return self.size(learning_rate, step), 1.0 - learning_rate * (self.weight_decay or 0.0)

    def rule(self, weights: list[Tensor], gradients: list[Tensor], slots: list[Slots], size: Tensor) -> None:
        """Change weights and slots in place by clipped gradients. Written by the subclass.

        Args:
            weights, gradients: tensors of one device and dtype.
            slots: one dict for each weight.
            size: 0-dim, on that device.
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
    ) -> None:
        """One update in place, from what `scalars` gave: clip the gradients, decay the weights, apply the rule.

        Args:
            weights: changed in place.
            gradients: one for each weight, of its shape; not changed.
            slots: one dict for each weight, as `init_slots` made them; changed in place.
            size: 0-dim, the size of the step.
            decay: 0-dim, the factor of weight decay.
            decayed: which weights decay; None for all.

        Only torch operations, nothing read back: it can be traced. Runs in the caller's grad mode.
        """
        gradients = [_fit(g, w) for g, w in zip(gradients, weights, strict=True)]
        if self.clipvalue is not None:
            gradients = clip_values(gradients, self.clipvalue)
        elif self.clipnorm is not None:
            gradients = clip_norms(gradients, self.clipnorm)
        elif self.global_clipnorm is not None:
            gradients = clip_global_norm(gradients, self.global_clipnorm)
        if self.weight_decay is not None:
            chosen = weights if decayed is None else [w for w, yes in zip(weights, decayed, strict=True) if yes]
            for group in _alike(chosen).values():
                torch._foreach_mul_([w for _, w in group], decay.to(group[0][1].device))
        groups = _alike(weights)
        if len(groups) == 1:
            self.rule(weights, gradients, slots, size)
            return
        for group in groups.values():
            places = [place for place, _ in group]
            first = weights[places[0]]
            self.rule(
                [weights[i] for i in places],
                [gradients[i] for i in places],
                [slots[i] for i in places],
                size.to(first.device),
            )

    def update(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        slots: list[Slots],
        learning_rate: Tensor,
        step: Tensor,
        decayed: Sequence[bool] | None = None,
    ) -> None:
        """`step`, from the learning rate and the number of the step (1 at the first), both 0-dim tensors."""
        size, decay = self.scalars(learning_rate, step)
        self.step(weights, gradients, slots, size, decay, decayed)


def _fit(gradient: Tensor, weight: Tensor) -> Tensor:
    """A gradient as the rules need it: dense, in the dtype of its weight, and contiguous if that is."""
    if gradient.layout is not torch.strided:
        gradient = gradient.to_dense()
    if gradient.dtype != weight.dtype:
        gradient = gradient.to(weight.dtype)
    return gradient if gradient.is_contiguous() else gradient.contiguous()


def _alike(tensors: Sequence[Tensor]) -> dict[tuple[torch.device, torch.dtype], list[tuple[int, Tensor]]]:
    """Tensors with their places, grouped by device and dtype."""
    groups: dict[tuple[torch.device, torch.dtype], list[tuple[int, Tensor]]] = {}
    for place, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype), []).append((place, tensor))
    return groups
