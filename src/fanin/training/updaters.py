"""What a compiled step needs of an optimizer: its tensors, a traceable update, and the bookkeeping around it."""

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

_COUNTED = {"_iterations", "_rate", "learning_rate", "name"}  # read anew in each step


class Updater(Protocol):
    """An optimizer, split into what a program does and what the host does before and after each run.

    Attributes:
        weights: those that the update changes.
        slots: one dict of tensors for each weight.
        numbers: 0-dim or small tensors, such as learning rates, which `begin_step` fills before each step.
        held: all weights that the optimizer was given, also those that the model does not have.
    """

    weights: list[Tensor]
    held: list[Tensor]
    slots: list[Slots]
    numbers: list[Tensor]

    def bind(self, trained: list[Tensor]) -> None:
        """Set the attributes for these weights, and make the state of new ones."""

    def holds(self) -> bool:
        """Whether the optimizer has the options and the weights that it had at `bind`."""

    def begin_step(self) -> Hashable:
        """Fill `numbers` for the coming step; returns its kind, which is part of the program's key."""

    def with_scale(self, loss: Tensor, numbers: list[Tensor]) -> Tensor:
        """The scaled loss, of which gradients are taken, in torch operations on the arguments."""

    def apply_update(
        self, kind: Any, weights: list[Tensor], gradients: Gradients, slots: list[Slots], numbers: list[Tensor]
    ) -> None:
        """The update, in place, in torch operations on the arguments; a weight without a gradient has None."""

    def end_step(self, kind: Any, has_gradient: Sequence[bool]) -> None:
        """Bookkeeping after a step: count it, and mark the weights as changed for autograd."""


class OwnUpdater:
    """The updater of one of our optimizers."""

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.weights: list[Tensor] = []
        self.held: list[Tensor] = []  # empty: all its weights are the model's
        self.slots: list[Slots] = []
        self.numbers: list[Tensor] = []

    def bind(self, trained: list[Tensor]) -> None:
        """As `Updater.bind`."""
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
        """As `Updater.holds`."""
        return bool(self._options(self._own) == self._values)

    def begin_step(self) -> Round:
        """As `Updater.begin_step`."""
        of = self.optimizer.next_round(self.weights)
        self.optimizer.numbers_for(of, self.weights[0])
        return of

    def with_scale(self, loss: Tensor, numbers: list[Tensor]) -> Tensor:
        """As `Updater.with_scale`."""
        return self.optimizer.with_scale(loss, numbers)

    def apply_update(
        self, kind: Round, weights: list[Tensor], gradients: Gradients, slots: list[Slots], numbers: list[Tensor]
    ) -> None:
        """As `Updater.apply_update`."""
        self.optimizer.play(kind, weights, gradients, slots, *numbers)

    def end_step(self, kind: Round, has_gradient: Sequence[bool]) -> None:
        """As `Updater.end_step`."""
        torch.autograd.graph.increment_version(self.weights)
        self.optimizer.count_round(kind, self.weights, has_gradient)


def updater_for(optimizer: Any) -> Updater | None:
    """The updater of an optimizer; None for one of torch's that has no fused kernel, and where there is none."""
    if isinstance(optimizer, Optimizer):
        return OwnUpdater(optimizer)
    return TorchUpdater(optimizer) if optimizer is not None and TorchUpdater.takes(optimizer) else None
