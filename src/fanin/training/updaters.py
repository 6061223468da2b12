"""What a compiled step needs of an optimizer: tensors to work on, a pure update, and the counting around it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor

from fanin.optimizers import Optimizer
from fanin.optimizers.core import Slots
from fanin.optimizers.rounds import Round

_COUNTED = {"_iterations", "_rate", "learning_rate", "name"}  # what steps read anew
Gradients = Sequence[Tensor | None]


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

    def stands(self) -> bool:
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

    def stands(self) -> bool:
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


class TorchUpdater:
    """The updater of torch.optim's SGD, Adam or AdamW: torch's fused kernels on the optimizer's own state."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self.weights: list[Tensor] = []
        self.held: list[Tensor] = []
        self.slots: list[Slots] = []
        self.numbers: list[Tensor] = []
        self._is_sgd = type(optimizer) is torch.optim.SGD
        self._members: list[list[int]] = []

    @staticmethod
    def takes(optimizer: torch.optim.Optimizer) -> bool:
        """Whether this is an optimizer with such a kernel, without hooks or options that the kernel lacks."""
        known = type(optimizer) in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
        known &= all(hasattr(torch, name) for name in ("_fused_sgd_", "_fused_adam_", "_fused_adamw_"))
        hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
        plain = all(not g.get("differentiable") and not g.get("capturable") for g in optimizer.param_groups)
        dtypes = {w.dtype for g in optimizer.param_groups for w in g["params"]}
        return known and not hooked and plain and dtypes <= {torch.float32, torch.float64}

    def arrange(self, trained: list[Tensor]) -> None:
        """As `Updater.arrange`: weights of the optimizer that `trained` leaves out get no update."""
        chosen = {id(w) for w in trained}
        self._fresh: dict[int, Slots] = {}  # what torch keeps only from a weight's first gradient on
        self._groups = [[w for w in g["params"] if id(w) in chosen] for g in self.optimizer.param_groups]
        self.weights = [w for group in self._groups for w in group]
        self.held = [w for g in self.optimizer.param_groups for w in g["params"]]
        self.slots = [
            self._state(w, group)
            for group, weights in zip(self.optimizer.param_groups, self._groups, strict=True)
            for w in weights
        ]
        self.numbers = [torch.zeros((), dtype=torch.float64) for _ in self._groups]
        self._members = self._look()

    def stands(self) -> bool:
        """As `Updater.stands`, and whether its state is the same tensors; options are part of the kind of each step."""
        return self._look() == self._members

    def _look(self) -> list[list[int]]:
        members = [[*map(id, group["params"])] for group in self.optimizer.param_groups]
        states = [*self.optimizer.state.values()]
        return [*members, [*map(id, states)], [*map(id, chain.from_iterable(map(dict.values, states)))]]

    def _state(self, weight: Tensor, group: dict[str, Any]) -> Slots:
        """The state of one weight, made as torch makes it where there is none yet."""
        state = self.optimizer.state.get(weight, {})
        names = ["momentum_buffer"] if group.get("momentum") else []
        if not self._is_sgd:
            names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        if all(state.get(name) is not None for name in names):
            return {name: value for name, value in state.items() if isinstance(value, Tensor)}
        fresh = {name: torch.zeros_like(weight, requires_grad=False) for name in names}
        if not self._is_sgd:
            fresh = {"step": torch.zeros((), dtype=torch.float32), **fresh}
        self._fresh[id(weight)] = fresh
        return fresh

    def next(self) -> Hashable:
        """As `Updater.next`: the options of all groups, and whether momentum begins."""
        kinds = []
        for number, group in zip(self.numbers, self.optimizer.param_groups, strict=True):
            number.fill_(group["lr"])
            kinds.append(tuple((k, v) for k, v in group.items() if k not in ("params", "lr", "initial_lr")))
        fresh = tuple(id(w) in self._fresh for w in self.weights) if self._is_sgd else ()
        return tuple(kinds), fresh

    def with_scale(self, loss: Tensor, numbers: list[Tensor]) -> Tensor:
        """As `Updater.with_scale`: the loss itself."""
        return loss

    def play(
        self, kind: Any, weights: list[Tensor], gradients: Gradients, slots: list[Slots], numbers: list[Tensor]
    ) -> None:
        """As `Updater.play`."""
        options, fresh = kind
        start = 0
        for group, rate, members in zip(options, numbers, self._groups, strict=True):
            places = [i for i in range(start, start + len(members)) if gradients[i] is not None]
            start += len(members)
            for first in (True, False) if self._is_sgd else (False,):
                chosen = [i for i in places if not self._is_sgd or fresh[i] is first]
                if chosen:
                    update = self._sgd if self._is_sgd else self._adam
                    given = [gradients[i].contiguous() for i in chosen]  # type: ignore[union-attr]
                    update(dict(group), rate, [weights[i] for i in chosen], given, [slots[i] for i in chosen], first)

    def _sgd(
        self,
        group: dict[str, Any],
        rate: Tensor,
        weights: list[Tensor],
        gradients: list[Tensor],
        slots: list[Slots],
        first: bool,
    ) -> None:
        torch._fused_sgd_(
            weights, gradients, [s["momentum_buffer"] for s in slots] if group["momentum"] else [],
            weight_decay=group["weight_decay"], momentum=group["momentum"], lr=rate, dampening=group["dampening"],
            nesterov=group["nesterov"], maximize=group["maximize"], is_first_step=first,
        )  # fmt: skip

    def _adam(
        self,
        group: dict[str, Any],
        rate: Tensor,
        weights: list[Tensor],
        gradients: list[Tensor],
        slots: list[Slots],
        _: bool,
    ) -> None:
        steps = [s["step"] for s in slots]
        torch._foreach_add_(steps, 1)
        decoupled = type(self.optimizer) is torch.optim.AdamW or group.get("decoupled_weight_decay", False)
        update = torch._fused_adamw_ if decoupled else torch._fused_adam_
        beta1, beta2 = group["betas"]
        update(
            weights, gradients, [s["exp_avg"] for s in slots], [s["exp_avg_sq"] for s in slots],
            [s["max_exp_avg_sq"] for s in slots] if group["amsgrad"] else [], steps, lr=rate, beta1=beta1, beta2=beta2,
            weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=group["amsgrad"], maximize=group["maximize"],
        )  # fmt: skip

    def done(self, kind: Any, has_gradient: Sequence[bool]) -> None:
        """As `Updater.done`."""
        torch.autograd.graph.increment_version(self.weights)
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # what torch's schedulers look for
        for weight, had in zip(self.weights, has_gradient, strict=True):
            if had and id(weight) in self._fresh:
                self.optimizer.state[weight].update(self._fresh.pop(id(weight)))
                self._members = self._look()


def updater_for(optimizer: Any) -> Updater | None:
    """The updater of an optimizer; None for one of torch's that has no fused kernel."""
    if isinstance(optimizer, Optimizer):
        return OwnUpdater(optimizer)
    return TorchUpdater(optimizer) if TorchUpdater.takes(optimizer) else None
