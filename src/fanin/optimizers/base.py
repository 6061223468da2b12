"""Keras's face of an optimizer: its arguments, `apply`, and its config; its parts are in files of their own.

`core.py` has the update itself, `rounds.py` what one call does, `rate.py` the learning rate, `accumulate.py` the count
of calls, `ema.py` averages of weights, `per_weight.py` what is chosen for single weights, `state.py` the state out and
in, `store.py` what is kept for each weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fanin import arguments, config, registry
from fanin.optimizers import schedules
from fanin.optimizers.rounds import Round, Rounds
from fanin.optimizers.state import State
from fanin.optimizers.store import ByWeight, SlotStore

_OF_KERAS_1 = {
    "lr": "The rate is learning_rate.",
    "decay": "A rate that falls is a schedule: learning_rate=fanin.optimizers.schedules.InverseTimeDecay(...).",
}


class Optimizer(State, Rounds):
    """Base of all optimizers; the update itself is in `Update`.

    Args:
        learning_rate: a number of 0 or more, or a schedule: one of `fanin.optimizers.schedules`, an object or function
            called with the number of steps made so far, or a function of no arguments.
        weight_decay: decoupled: w -= w * weight_decay * learning_rate before each step; None for none.
        clipnorm: each gradient is scaled to at most this norm.
        clipvalue: each number of a gradient is cut to [-clipvalue, clipvalue].
        global_clipnorm: all gradients together are scaled to at most this norm. At most one of the three.
        use_ema: whether to keep an average a of each weight: a = ema_momentum a + (1 - ema_momentum) w after every
            call of `apply`, and a = w after the first. `fit` puts the averages into the weights when it ends; see
            `finalize_variable_values`.
        ema_momentum: in [0, 1], 0.99 by default.
        ema_overwrite_frequency: the averages go into the weights after every so many updates, too; None for never.
        loss_scale_factor: above 0: what losses are multiplied by before gradients are taken of them, and gradients are
            divided by before all else, so that small ones survive in float16. None for 1. See `LossScaleOptimizer`.
        gradient_accumulation_steps: 2 or more: only every so many calls of `apply` make an update, from the mean of
            the gradients given since the last one; clipping and weight decay are part of the update. A schedule counts
            the calls, `iterations` the updates. None for an update at every call.
        name: by default the class's own, in snake case and unique.

    Attributes:
        is_plain: whether a call of `apply` is one `update` and nothing else: no averages, no accumulation.

    Raises ValueError, naming the argument and the value, for numbers that are not finite or out of range, and for
    arguments it does not know. After Keras's `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        if kwargs:
            known = "".join(f" {_OF_KERAS_1[name]}" for name in kwargs if name in _OF_KERAS_1)
            raise ValueError(f"{type(self).__name__} does not know the argument {', '.join(map(repr, kwargs))}.{known}")
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {what: arguments.number(what, value, ends="()") for what, value in clips.items() if value is not None}
        if len(given) > 1:
            shown = ", ".join(f"{what}={value!r}" for what, value in given.items())
            raise ValueError(f"Only one of clipnorm, clipvalue and global_clipnorm can be set, found {shown}.")
        self.name = name or config.unique_name(registry.snake_case(type(self).__name__))
        self.weight_decay = None if weight_decay is None else arguments.number("weight_decay", weight_decay)
        self.clipnorm = given.get("clipnorm")
        self.clipvalue = given.get("clipvalue")
        self.global_clipnorm = given.get("global_clipnorm")
        self.use_ema = arguments.flag("use_ema", use_ema)
        self.ema_momentum = arguments.number("ema_momentum", ema_momentum, 0.0, 1.0, ends="[]")
        self.ema_overwrite_frequency = _every("ema_overwrite_frequency", ema_overwrite_frequency, 1)
        self.loss_scale_factor = (
            None if loss_scale_factor is None else arguments.number("loss_scale_factor", loss_scale_factor, ends="()")
        )
        self.gradient_accumulation_steps = _every("gradient_accumulation_steps", gradient_accumulation_steps, 2)
        self.is_plain = not self.use_ema and not self.gradient_accumulation_steps
        self.first_groups = [
            *([["average"]] if self.use_ema else []),
            *([["gradient_accumulator"]] if self.gradient_accumulation_steps else []),
        ]
        self._rate = 0.0
        self.learning_rate = learning_rate
        self._iterations = 0
        self._store = SlotStore()
        self._excluded = ByWeight()
        self._factors = ByWeight()
        self._chooses = False
        self._waiting = ByWeight()
        self._built = []
        self._numbers = {}

    def apply(self, gradients: Iterable[Tensor | None], trainable_variables: Iterable[Tensor] | None = None) -> None:
        """One step: `apply(gradients, weights)` as in Keras, or `apply(weights, gradients)`.

        Args:
            gradients: one for each weight; a weight whose gradient is None is left alone.
            trainable_variables: the weights; None for those of `build`.

        Weights are told from gradients: they are `Parameter`s, or leaves that require gradients. So the order of the
        two lists cannot be mistaken; where neither or both hold such tensors, it is a TypeError. Slots are made at a
        weight's first step. Raises ValueError if the lists differ in length or in shapes, or if every gradient is
        None.
        """
        first = list(gradients)
        if trainable_variables is None:
            grads, weights = first, self._known(None)
        else:
            second = list(trainable_variables)
            if _are_weights(first) == _are_weights(second) and (first or second):
                which = "both lists hold" if _are_weights(first) else "neither list holds"
                raise TypeError(f"apply(gradients, weights): {which} weights (Parameters, or requires_grad=True).")
            grads, weights = (second, first) if _are_weights(first) else (first, second)  # type: ignore[assignment]
        if len(grads) != len(weights):
            raise ValueError(f"Found {len(grads)} gradients for {len(weights)} weights.")
        pairs = [(g, w) for g, w in zip(grads, weights, strict=True) if g is not None]
        if not pairs:
            if weights:
                raise ValueError("Every gradient is None: the loss does not depend on the weights.")
            return
        if not self.built:
            self.remember(weights)
        for g, w in pairs:
            if g.shape != w.shape:
                raise ValueError(f"Found a gradient of shape {tuple(g.shape)} for a weight of shape {tuple(w.shape)}.")
        everyone = self.known_weights([w for _, w in pairs] if self.is_plain else weights)
        has = {id(w): g for g, w in pairs}
        self._call(everyone, [has.get(id(w)) for w in everyone])

    def _call(self, weights: list[Tensor], gradients: list[Tensor | None]) -> None:
        """One call on all known weights."""
        of = self.next_round(weights)
        numbers = self.numbers_for(of, weights[0])  # first of all: a schedule may fail
        with torch.no_grad():
            self.play(of, weights, gradients, self.slots(weights), *numbers)
        torch.autograd.graph.increment_version(weights)  # torch's fused updates do not, and autograd relies on it
        self.count_round(of, weights, [g is not None for g in gradients])

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Tensor | None, Tensor]]) -> int:
        """One step from pairs (gradient, weight). Returns how many steps were made."""
        pairs = list(grads_and_vars)
        self.apply([g for g, _ in pairs], [w for _, w in pairs])
        return self._iterations

    def scale_loss(self, loss: Tensor) -> Tensor:
        """What to take gradients of, for `apply`: the loss times `loss_scale_factor`."""
        return self.with_scale(loss, ())

    @property
    def core(self) -> Optimizer:
        """The optimizer whose attributes are the options of an update: itself, unless it wraps another."""
        return self

    def numbers_for(self, of: Round, weight: Tensor) -> tuple[Tensor | None, ...]:
        """What `play` needs besides tensors of weights: for most optimizers the size and decay of a step."""
        return self.numbers(weight) if of.is_due else (None, None)

    def numbers(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Size and decay of the next step as 0-dim tensors, made once for each device and then refilled."""
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        key = weight.device, dtype
        size_now, decay_now = self.scalars(self.learning_rate, float(self.iterations + 1))
        is_several = isinstance(size_now, tuple)
        values = size_now if isinstance(size_now, tuple) else (size_now,)
        if key not in self._numbers:
            with torch.inference_mode(False):
                self._numbers[key] = (
                    torch.zeros(len(values) if is_several else (), dtype=dtype, device=weight.device),
                    torch.ones((), dtype=dtype, device=weight.device),
                )
        size, decay = self._numbers[key]
        for place, value in zip(size.unbind() if is_several else (size,), values, strict=True):
            place.fill_(value)
        if self.weight_decay is not None:
            decay.fill_(decay_now)
        return size, decay

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        rate = self._rate if not callable(self._rate) else registry.serialize(self._rate)
        return {
            "name": self.name,
            "learning_rate": rate,
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Optimizer:
        """The optimizer that `get_config` described, without its state."""
        found = dict(config)
        if isinstance(found.get("learning_rate"), dict):
            found["learning_rate"] = schedules.deserialize(found["learning_rate"], custom_objects)
        return cls(**found)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name!r} iterations={self.iterations}>"


def _are_weights(tensors: Sequence[Tensor | None]) -> bool:
    """Whether these are weights, not gradients, which are never parameters nor leaves that require gradients."""
    return any(isinstance(t, torch.nn.Parameter) or (t is not None and t.requires_grad and t.is_leaf) for t in tensors)


def _every(what: str, value: Any, least: int) -> int | None:
    """A number of steps, as it was given; None and 0 are for never."""
    return arguments.whole(what, value, least) if value else value
