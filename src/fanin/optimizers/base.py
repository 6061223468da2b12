"""Keras's face of an optimizer: its arguments, learning rate and count, `apply`, and its state in and out."""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fanin import config, registry
from fanin.optimizers import hyper
from fanin.optimizers.core import Slots, Update
from fanin.optimizers.store import SlotStore


class Optimizer(Update):
    """Base of all optimizers; the update itself is in `Update`.

    Args:
        learning_rate: a number of 0 or more, or a schedule: an object or function called with the number of updates
            made so far, or a function of no arguments.
        weight_decay: decoupled: w -= w * weight_decay * learning_rate before each step; None for none.
        clipnorm: each gradient is scaled to at most this norm.
        clipvalue: each number of a gradient is cut to [-clipvalue, clipvalue].
        global_clipnorm: all gradients together are scaled to at most this norm. At most one of the three.
        use_ema, loss_scale_factor, gradient_accumulation_steps: not available yet: NotImplementedError.
        ema_momentum, ema_overwrite_frequency: kept for configs.
        name: by default the class's own, in snake case and unique.

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
            raise ValueError(f"{type(self).__name__} does not know the argument {', '.join(map(repr, kwargs))}.")
        for what, value in (
            ("use_ema", use_ema),
            ("loss_scale_factor", loss_scale_factor),
            ("gradient_accumulation_steps", gradient_accumulation_steps),
        ):
            if value is not None and value is not False:
                raise NotImplementedError(f"{type(self).__name__}: {what}={value!r} is not available yet.")
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {what: hyper.number(what, value, ends="()") for what, value in clips.items() if value is not None}
        if len(given) > 1:
            shown = ", ".join(f"{what}={value!r}" for what, value in given.items())
            raise ValueError(f"Only one of clipnorm, clipvalue and global_clipnorm can be set, found {shown}.")
        self.name = name or config.unique_name(registry.snake_case(type(self).__name__))
        self.weight_decay = None if weight_decay is None else hyper.number("weight_decay", weight_decay)
        self.clipnorm = given.get("clipnorm")
        self.clipvalue = given.get("clipvalue")
        self.global_clipnorm = given.get("global_clipnorm")
        self.use_ema = False
        self.ema_momentum = hyper.number("ema_momentum", ema_momentum, 0.0, 1.0, ends="[]")
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor: float | None = None
        self.gradient_accumulation_steps: int | None = None
        self._rate: float | Callable[..., Any] = 0.0
        self.learning_rate = learning_rate
        self._iterations = 0
        self._store = SlotStore()
        self._excluded: Any = WeakTensorKeyDictionary()
        self._built: list[weakref.ref[Tensor]] = []
        self._numbers: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    # --- numbers that change ------------------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step. Assign a number, or a schedule; it counts from the next step on."""
        if not callable(self._rate):
            return self._rate
        return hyper.learning_rate(self._rate(self._iterations) if self._takes_step else self._rate())

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        is_schedule = callable(value) and not isinstance(value, (Tensor, np.ndarray, np.generic))
        self._rate = value if is_schedule else hyper.learning_rate(value)
        self._takes_step = is_schedule and _takes_step(value)

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate comes from a schedule; it is then not part of the saved state."""
        return callable(self._rate)

    @property
    def iterations(self) -> int:
        """How many updates were made."""
        return self._iterations

    @iterations.setter
    def iterations(self, value: Any) -> None:
        if isinstance(value, bool) or int(value) != value or value < 0:
            raise ValueError(f"iterations must be a whole number of 0 or more, found {value!r}.")
        self._iterations = int(value)

    # --- steps --------------------------------------------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """Whether `build` was called, by hand or by the first `apply`."""
        return bool(self._built)

    def build(self, weights: Iterable[Tensor]) -> None:
        """Make the slots of `weights`, and remember their order for calls that do not name them."""
        found = list(weights)
        self.slots(found)
        self._built = [weakref.ref(w) for w in found]

    def slots(self, weights: Sequence[Tensor]) -> list[Slots]:
        """The slots of each weight, kept by parameter and made when first asked for; see `SlotStore`."""
        return self._store.get(weights, self.init_slots)

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
        if not self._built:
            self._built = [weakref.ref(w) for w in weights]
        if len(pairs) < len(weights):
            weights = [w for _, w in pairs]
        given = [g for g, _ in pairs]
        for g, w in pairs:
            if g.shape != w.shape:
                raise ValueError(f"Found a gradient of shape {tuple(g.shape)} for a weight of shape {tuple(w.shape)}.")
        slots = self.slots(weights)
        size, decay = self._tensors(weights[0])
        with torch.no_grad():
            self.step(weights, given, slots, size, decay, self.decays(weights) if len(self._excluded) else None)
        torch.autograd.graph.increment_version(weights)  # torch's fused updates do not, and autograd relies on it
        self._iterations += 1

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Tensor | None, Tensor]]) -> int:
        """One step from pairs (gradient, weight). Returns `iterations`."""
        pairs = list(grads_and_vars)
        self.apply([g for g, _ in pairs], [w for _, w in pairs])
        return self._iterations

    def _tensors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Size and decay of the next step as 0-dim tensors, made once for each device and then refilled."""
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        key = weight.device, dtype
        if key not in self._numbers:
            with torch.inference_mode(False):
                self._numbers[key] = (
                    torch.zeros((), dtype=dtype, device=weight.device),
                    torch.ones((), dtype=dtype, device=weight.device),
                )
        size, decay = self._numbers[key]
        size_now, decay_now = self.scalars(self.learning_rate, float(self._iterations + 1))
        size.fill_(size_now)
        if self.weight_decay is not None:
            decay.fill_(decay_now)
        return size, decay

    # --- weight decay -------------------------------------------------------------------------------------------------

    def exclude_from_weight_decay(
        self,
        var_list: Iterable[Tensor] | None = None,
        var_names: Iterable[str] | None = None,
        module: torch.nn.Module | None = None,
    ) -> None:
        """Choose weights that do not decay; replaces an earlier choice.

        Args:
            var_list: the weights.
            var_names: patterns looked for in the full names of the parameters of `module`, as in ["bias"].
            module: whose parameters have those names; needed with `var_names`.

        Raises ValueError for names without a module, or that are found in none of its parameters.
        """
        chosen = list(var_list or [])
        names = list(var_names or [])
        if names and module is None:
            raise ValueError("var_names needs module=: a torch parameter does not know its own name.")
        if names and module is not None:
            hits = [w for full, w in module.named_parameters() if any(re.search(n, full) for n in names)]
            if not hits:
                raise ValueError(f"No parameter of {type(module).__name__} has a name with any of {names!r}.")
            chosen += hits
        self._excluded = WeakTensorKeyDictionary()
        for weight in chosen:
            self._excluded[weight] = True

    def decays(self, weights: Iterable[Tensor]) -> list[bool]:
        """For each weight, whether weight decay changes it."""
        return [self.weight_decay is not None and w not in self._excluded for w in weights]

    # --- state in and out ---------------------------------------------------------------------------------------------

    def _known(self, weights: Iterable[Tensor] | None) -> list[Tensor]:
        if weights is not None:
            return list(weights)
        alive = [ref() for ref in self._built]
        if not alive or any(w is None for w in alive):
            raise ValueError(f"{self.name} does not know its weights: call build(weights), or pass them.")
        return [w for w in alive if w is not None]

    def variables(self, weights: Iterable[Tensor] | None = None) -> list[Tensor]:
        """The state in the order of Keras's files: iteration, learning rate, then the slots group by group.

        Args:
            weights: in the model's order; None for those of `build`.

        iteration is an int32 and the learning rate a float32 scalar, both copies; without the learning rate if it
        has a schedule. The slots are the live tensors.
        """
        slots = self.slots(self._known(weights))
        kind = torch.int32 if self._iterations < 2**31 else torch.int64
        state = [torch.tensor(self._iterations, dtype=kind)]
        if not self.has_schedule:
            state.append(torch.tensor(self.learning_rate, dtype=torch.float32))
        return state + [each[name] for group in self.groups for each in slots for name in group]

    def get_state(self, weights: Iterable[Tensor] | None = None) -> list[NDArray[Any]]:
        """`variables` as arrays, copied to the host; bfloat16 as float32."""
        found = (v.detach().cpu() for v in self.variables(weights))
        return [(v.float() if v.dtype == torch.bfloat16 else v).numpy().copy() for v in found]

    def set_state(self, weights: Iterable[Tensor] | None, arrays: Sequence[Any]) -> None:
        """Take over what `get_state` gave, here or in Keras.

        Args:
            weights: in the model's order; None for those of `build`.
            arrays: arrays or tensors, in the order of `variables`.

        Raises ValueError, naming what was found and expected, for another count, shape or a bad number; nothing is
        changed then.
        """
        weights = self._known(weights)
        targets = self.variables(weights)
        found = [_as_tensor(a) for a in arrays]
        if len(found) != len(targets):
            raise ValueError(f"{self.name} has {len(targets)} variables, found {len(found)} arrays.")
        head = 1 if self.has_schedule else 2
        names = ["iteration", "learning_rate"][:head]
        names += [f"{n} {i}" for g in self.groups for i in range(len(weights)) for n in g]
        for name, target, array in zip(names, targets, found, strict=True):
            if array.shape != target.shape:
                raise ValueError(
                    f"{self.name}: {name} has shape {tuple(target.shape)}, found an array of shape "
                    f"{tuple(array.shape)}."
                )
            if array.is_complex():
                raise ValueError(f"{self.name}: {name} is made of real numbers, found {array.dtype}.")
        count = hyper.number("iteration", found[0])
        if not count.is_integer():
            raise ValueError(f"iteration must be a whole number, found {count!r}.")
        rate = None if self.has_schedule else hyper.learning_rate(found[1])
        self._iterations = int(count)
        if rate is not None:
            self._rate = rate
        with torch.no_grad():
            for target, array in zip(targets[head:], found[head:], strict=True):
                target.copy_(array)

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
            found["learning_rate"] = registry.deserialize(found["learning_rate"], custom_objects)
        return cls(**found)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_excluded"] = list(self._excluded.keys())
        state["_built"] = [w for w in (ref() for ref in self._built) if w is not None]
        state["_numbers"] = {}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._excluded = WeakTensorKeyDictionary()
        for weight in state["_excluded"]:
            self._excluded[weight] = True
        self._built = [weakref.ref(w) for w in state["_built"]]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name!r} iterations={self._iterations}>"


def _takes_step(schedule: Callable[..., Any]) -> bool:
    """Whether a schedule wants the number of updates: all do but functions without arguments."""
    try:
        parameters = inspect.signature(schedule).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)


def _are_weights(tensors: Sequence[Tensor | None]) -> bool:
    """Whether these are weights, not gradients, which are never parameters nor leaves that require gradients."""
    return any(isinstance(t, torch.nn.Parameter) or (t is not None and t.requires_grad and t.is_leaf) for t in tensors)


def _as_tensor(array: Any) -> Tensor:
    """A tensor of real numbers from an array or tensor, else a ValueError."""
    if isinstance(array, Tensor):
        return array
    array = np.array(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"The state of an optimizer is made of numbers, found an array of {array.dtype}.")
    return torch.from_numpy(array)
