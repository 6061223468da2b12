"""torch.optim's optimizers in compiled steps."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from fanin.dtypes import widest_float
from fanin.optimizers.core import Slots
from fanin.training import torch_rules

Gradients = Sequence[Tensor | None]
# Options that rules read besides the learning rate, by whether it is SGD; schedulers may change those of `_CHANGING`.
_FIXED = {True: ("dampening", "nesterov", "maximize"), False: ("eps", "amsgrad", "maximize", "decoupled_weight_decay")}
_CHANGING = {True: ("momentum", "weight_decay"), False: ("betas", "weight_decay")}


class TorchUpdater:
    """The updater of torch.optim's SGD, Adam or AdamW: it works on the optimizer's own state."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer
        self.weights: list[Tensor] = []
        self.held: list[Tensor] = []
        self.slots: list[Slots] = []
        self.numbers: list[Tensor] = []
        self._is_sgd = type(optimizer) is torch.optim.SGD
        self._fixed, self._changing = itemgetter(*_FIXED[self._is_sgd]), itemgetter(*_CHANGING[self._is_sgd])
        self._members: list[list[int]] = []
        self._last_changing: list[Any] = []  # the schedulable options of each group at the last step
        self._varying: set[int] = set()  # groups in which these have changed between steps

    @staticmethod
    def takes(optimizer: torch.optim.Optimizer) -> bool:
        """Whether a program can do this optimizer's update: SGD, Adam or AdamW, without hooks or special options."""
        known = type(optimizer) in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
        known &= all(hasattr(torch, name) for name in ("_fused_sgd_", "_fused_adam_", "_fused_adamw_"))
        has_hooks = (
            optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks or _has_own_step(optimizer)
        )
        is_supported = all(not g.get("differentiable") and not g.get("capturable") for g in optimizer.param_groups)
        weights = [w for g in optimizer.param_groups for w in g["params"]]
        is_uniform = {w.dtype for w in weights} <= {torch.float32, torch.float64} and len(
            {w.device for w in weights}
        ) == 1
        return known and not has_hooks and is_supported and is_uniform

    def bind(self, trained: list[Tensor]) -> None:
        """As `Updater.bind`: weights of the optimizer that `trained` leaves out get no update."""
        chosen = {id(w) for w in trained} if self.takes(self.optimizer) else set()  # hooks may have been added since
        self._fresh: dict[int, Slots] = {}  # id of a weight -> state that torch would make at its first gradient
        self._groups = [[w for w in g["params"] if id(w) in chosen] for g in self.optimizer.param_groups]
        self.weights = [w for group in self._groups for w in group]
        self.held = [w for g in self.optimizer.param_groups for w in g["params"]]
        self.slots = [
            self._state(w, group)
            for group, weights in zip(self.optimizer.param_groups, self._groups, strict=True)
            for w in weights
        ]
        device = self.held[0].device
        self._numbers = [
            [torch.zeros((), dtype=widest_float(device), device=device) for _ in range(3 if self._is_sgd else 4)]
            for _ in self.optimizer.param_groups
        ]
        self.numbers = [number for numbers in self._numbers for number in numbers]
        self._members = self._memberships()

    def holds(self) -> bool:
        """As `Updater.holds`: its weights, hooks and state tensors; options are part of the kind of each step."""
        return self._memberships() == self._members

    def _memberships(self) -> list[list[int]]:
        members = [[*map(id, group["params"])] for group in self.optimizer.param_groups]
        own = self.optimizer
        hooks = [len(own._optimizer_step_pre_hooks), len(own._optimizer_step_post_hooks), int(_has_own_step(own))]
        return [*members, hooks, [*map(id, chain.from_iterable(map(dict.values, own.state.values())))]]

    def _state(self, weight: Tensor, group: dict[str, Any]) -> Slots:
        """The state of one weight; new and as torch initializes it, where there is none yet."""
        state = self.optimizer.state.get(weight, {})
        names = ["momentum_buffer"] if group.get("momentum") else []
        if not self._is_sgd:
            names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        if all(state.get(name) is not None for name in names):
            if (
                "step" in state and weight.device.type != "cpu"
            ):  # torch keeps it on the host by default, and accepts both
                state["step"] = state["step"].to(weight.device, torch.float32)
            return {name: value for name, value in state.items() if isinstance(value, Tensor)}
        fresh = {name: torch.zeros_like(weight, requires_grad=False) for name in names}
        if not self._is_sgd:
            fresh = {"step": torch.zeros((), dtype=torch.float32, device=weight.device), **fresh}
        self._fresh[id(weight)] = fresh
        return fresh

    def begin_step(self) -> Hashable:
        """As `Updater.begin_step`: the kind is the options of each group (None: varying), and where momentum begins."""
        groups = self.optimizer.param_groups
        changing = [*map(self._changing, groups)]
        if changing != self._last_changing:
            self._varying |= {
                i for i, (was, now) in enumerate(zip(self._last_changing, changing, strict=False)) if was != now
            }
            self._last_changing = changing
        for (rate, *_), group in zip(self._numbers, groups, strict=True):
            rate.fill_(group["lr"])
        fresh = tuple(id(w) in self._fresh for w in self.weights) if self._is_sgd else ()
        return tuple(map(self._fixed, groups)), tuple(self._constants(changing)), fresh

    def _constants(self, changing: list[Any]) -> Iterator[Any]:
        """For each group its schedulable options; None where they vary, and then they are filled into `numbers`."""
        for i, values in enumerate(changing):
            momentum, decay = values
            if i not in self._varying or not momentum:
                yield values
                continue
            for number, value in zip(self._numbers[i][1:], (*_as_tuple(momentum), decay), strict=True):
                number.fill_(value)
            yield None

    def with_scale(self, loss: Tensor, numbers: list[Tensor]) -> Tensor:
        """As `Updater.with_scale`: the loss itself."""
        return loss

    def apply_update(
        self, kind: Any, weights: list[Tensor], gradients: Gradients, slots: list[Slots], numbers: list[Tensor]
    ) -> None:
        """As `Updater.apply_update`."""
        fixed, changing, fresh = kind
        of_group, numbers_left = iter(range(len(weights))), iter(numbers)
        for i, members in enumerate(self._groups):
            group = dict(zip(_FIXED[self._is_sgd], fixed[i], strict=True))
            group |= zip(_CHANGING[self._is_sgd], changing[i] or (), strict=changing[i] is not None)
            group["decoupled_weight_decay"] = self._is_decoupled(i)
            own = [next(numbers_left) for _ in self._numbers[i]]
            places = [place for _, place in zip(members, of_group, strict=False) if gradients[place] is not None]
            rule = torch_rules.sgd if self._is_sgd else torch_rules.adam
            for first in (True, False) if self._is_sgd else (False,):
                chosen = [place for place in places if not self._is_sgd or fresh[place] is first]
                if chosen:
                    found = [gradients[place].contiguous() for place in chosen]  # type: ignore[union-attr]
                    rule(group, own, [weights[p] for p in chosen], found, [slots[p] for p in chosen], first)

    def _is_decoupled(self, place: int) -> bool:
        """Whether weight decay acts on the weights of a group, as in AdamW, and not on its gradients."""
        group = self.optimizer.param_groups[place]
        return type(self.optimizer) is torch.optim.AdamW or group.get("decoupled_weight_decay", False)

    def end_step(self, kind: Any, has_gradient: Sequence[bool]) -> None:
        """As `Updater.end_step`."""
        torch.autograd.graph.increment_version(self.weights)
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # torch's schedulers check this
        for weight, had in zip(self.weights, has_gradient, strict=True) if self._fresh else ():
            if had and id(weight) in self._fresh:
                self.optimizer.state[weight].update(self._fresh.pop(id(weight)))
                self._members = self._memberships()


def _has_own_step(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` was replaced on an optimizer, other than by torch's schedulers."""
    step = vars(optimizer).get("step")
    return step is not None and not getattr(step, "_wrapped_by_lr_sched", False)


def _as_tuple(momentum: Any) -> tuple[float, ...]:
    """SGD's momentum or Adam's betas as numbers in a row."""
    return momentum if isinstance(momentum, tuple) else (momentum,)
