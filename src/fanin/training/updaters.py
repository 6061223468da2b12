"""What a compiled step needs of an optimizer: tensors to work on, a pure update, and the counting around it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor

from fanin.optimizers import Optimizer
from fanin.optimizers.core import Slots
from fanin.optimizers.rounds import Round
from fanin.training.torch_updater import Gradients, TorchUpdater

_COUNTED = {"_iterations", "_rate", "learning_rate", "name"}  # what steps read anew


class Updater(Protocol):
    """An optimizer, split into what a program does and what the host does around it.

    Attributes:
        weights: all that it may change.
        slots: one dict of tensors for each weight.
        numbers: 0-dim or small tensors, such as learning rates, which `next` fills before each step.
        held: all weights that the optimizer was given, also those that the model does not have.
    """

    weights: list[Tensor]
    held: list[Tensor]
    slots: list[Slots]
    numbers: list[Tensor]

    def arrange(self, trained: list[Tensor]) -> None:
        """Get ready for these weights."""

    def holds(self) -> bool:
        """Whether the optimizer has the options and the weights that it had at `arrange`."""

    def next(self) -> Hashable:
        """Fill the numbers for the coming step; returns what kind of step it is, as part of a program's key."""

    def with_scale(self, loss: Tensor, numbers: list[Tensor]) -> Tensor:
        """What gradients are taken of, in torch operations on what is given."""

    def play(
        self, kind: Any, weights: list[Tensor], gradients: Gradients, slots: list[Slots], numbers: list[Tensor]
    ) -> None:
        """The update, in torch operations on what is given."""

    def done(self, kind: Any, has_gradient: Sequence[bool]) -> None:
        """Count a step that was made."""


class OwnUpdater:
    """The updater of one of our optimizers."""

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.weights: list[Tensor] = []
        self.held: list[Tensor] = []  # by the model's alone
        self.slots: list[Slots] = []
        self.numbers: list[Tensor] = []

    def arrange(self, trained: list[Tensor]) -> None:
        """As `Updater.arrange`."""
        if not self.optimizer.built:
            self.optimizer.build(trained)
        self.weights = self.optimizer.known_weights(trained)
        self.slots = self.optimizer.slots(self.weights)
        self.numbers = [one for one in self.optimizer.numbers_for(Round(), self.weights[0]) if one is not None]
        self._own = vars(self.optimizer.core)
        plain = (bool, int, float, str, type(None))
        names = [name for name, value in self._own.items() if isinstance(value, plain) and name not in _COUNTED]
        self._options = itemgetter(*names)
        self._values = self._options(self._own)

    def holds(self) -> bool:
        """As `Updater.stands`."""
        return bool(self._options(self._own) == self._values)

    def next(self) -> Round:
        """As `Updater.next`."""
        of = self.optimizer.next_round(self.weights)
        self.optimizer.numbers_for(of, self.weights[0])
        return of

    def with_scale(self, loss: Tensor, numbers: list[Tensor]) -> Tensor:
        """As `Updater.with_scale`."""
        return self.optimizer.with_scale(loss, numbers)

    def play(
        self, kind: Round, weights: list[Tensor], gradients: Gradients, slots: list[Slots], numbers: list[Tensor]
    ) -> None:
        """As `Updater.play`."""
        self.optimizer.play(kind, weights, gradients, slots, *numbers)

    def done(self, kind: Round, has_gradient: Sequence[bool]) -> None:
        """As `Updater.done`."""
        torch.autograd.graph.increment_version(self.weights)
        self.optimizer.count_round(kind, self.weights, has_gradient)


def updater_for(optimizer: Any) -> Updater | None:
    """The updater of an optimizer; None for one of torch's that has no fused kernel, and where there is none."""
    if isinstance(optimizer, Optimizer):
        return OwnUpdater(optimizer)
    return TorchUpdater(optimizer) if optimizer is not None and TorchUpdater.takes(optimizer) else None
