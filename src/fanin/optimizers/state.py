"""The state of an optimizer, out and in: as tensors and arrays in the order of Keras's files, and in copies."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fanin import arguments
from fanin.optimizers.ema import Ema
from fanin.optimizers.rate import Rate, checked_rate
from fanin.optimizers.store import ByWeight

Spec = tuple[tuple[int, ...], torch.dtype, bool]


class State(Ema, Rate):
    """The part of an optimizer that gives its state and takes it over."""

    _numbers: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]]
    _rate: float | Callable[..., Any]

    def derived(self) -> dict[str, float]:
        """Scalars that Keras writes after the slots, and that are worked out from the count here: none for most."""
        return {}

    @property
    def variables(self) -> list[Tensor]:
        """The state for the weights of `build`, as `state_tensors` gives it; before, that of no weights."""
        return self.state_tensors(None if self.built else [])

    def state_tensors(self, weights: Iterable[Tensor] | None = None) -> list[Tensor]:
        """The state in the order of Keras's files: iteration, learning rate, then the slots group by group.

        Args:
            weights: in the model's order; None for those of `build`.

        iteration is an int32 and the learning rate a float32 scalar, both copies; without the learning rate if it
        has a schedule. The slots are the live tensors. With accumulation, iteration counts every call of `apply`.
        """
        weights = self._known(weights)
        slots = self.slots(weights)
        kind = torch.int32 if self._iterations < 2**31 else torch.int64
        state = [torch.tensor(self._iterations, dtype=kind, device="cpu")]
        if not self.has_schedule:
            state.append(torch.tensor(self.learning_rate, dtype=torch.float32, device="cpu"))
        state += [each[name] for group in (*self.first_groups, *self.groups) for each in slots for name in group]
        derived = [(value, w.dtype) for w in weights[:1] for value in self.derived().values()]
        return state + [torch.tensor(value, dtype=kind, device="cpu") for value, kind in derived]

    def specs(self, weights: Sequence[Tensor]) -> list[Spec]:
        """What a file must hold for `state_tensors(weights)`: for each a shape, a dtype, and whether it is just
        that dtype.

        Without weights: the state before the first step.
        """
        specs: list[Spec] = [((), torch.int64, False), ((), torch.float64, False)]
        del specs[self._head :]
        for names in (*self.first_groups, *self.groups):
            specs += [(tuple(w.shape), w.dtype, True) for w in weights for _ in names]
        return specs + [((), w.dtype, True) for w in weights[:1] for _ in self.derived()]

    def check_head(self, values: Sequence[Any]) -> None:
        """ValueError or TypeError unless the numbers at the head of a state are such as an optimizer can have."""
        arguments.number("iteration", values[0])
        if not self.has_schedule:
            checked_rate(values[1])

    def get_state(self, weights: Iterable[Tensor] | None = None) -> list[NDArray[Any]]:
        """`state_tensors` as arrays, copied to the host; bfloat16 as float32."""
        found = (v.detach().cpu() for v in self.state_tensors(weights))
        return [(v.float() if v.dtype == torch.bfloat16 else v).numpy().copy() for v in found]

    def set_state(self, weights: Iterable[Tensor] | None, arrays: Sequence[Any]) -> None:
        """Take over what `get_state` gave, here or in Keras.

        Args:
            weights: in the model's order; None for those of `build`.
            arrays: arrays or tensors, in the order of `state_tensors`.

        Raises ValueError, naming what was found and expected, for another count, shape or a bad number; nothing is
        changed then.
        """
        weights = self._known(weights)
        targets = self.state_tensors(weights)
        found = [_as_tensor(a) for a in arrays]
        if len(found) != len(targets):
            raise ValueError(f"{self.name} has {len(targets)} variables, found {len(found)} arrays.")
        names = ["iteration", "learning_rate"][: self._head]
        names += [f"{n} {i}" for g in (*self.first_groups, *self.groups) for i in range(len(weights)) for n in g]
        head, end = self._head, len(names)
        names += list(self.derived())[: len(targets) - end]
        for name, target, array in zip(names, targets, found, strict=True):
            if array.shape != target.shape:
                raise ValueError(
                    f"{self.name}: {name} has shape {tuple(target.shape)}, found an array of shape "
                    f"{tuple(array.shape)}."
                )
            if array.is_complex():
                raise ValueError(f"{self.name}: {name} is made of real numbers, found {array.dtype}.")
        count = arguments.number("iteration", found[0])
        if not count.is_integer():
            raise ValueError(f"iteration must be a whole number, found {count!r}.")
        rate = None if self.has_schedule else checked_rate(found[1])
        self._iterations = int(count)
        if rate is not None:
            self._rate = rate
        with torch.no_grad():
            for target, array in zip(targets[head:end], found[head:end], strict=True):
                target.copy_(array)
        midway = self._iterations % (self.gradient_accumulation_steps or 1) != 0
        self._waiting = ByWeight((w, True) for w in weights if midway)

    @property
    def _head(self) -> int:
        """How many scalars come before the slots."""
        return 1 if self.has_schedule else 2

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_built"] = [w for w in (ref() for ref in self._built) if w is not None]
        state["_numbers"] = {}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._built = [weakref.ref(w) for w in state["_built"]]


def _as_tensor(array: Any) -> Tensor:
    """A tensor of real numbers from an array or tensor, else a ValueError."""
    if isinstance(array, Tensor):
        return array
    array = np.array(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"The state of an optimizer is made of numbers, found an array of {array.dtype}.")
    return torch.from_numpy(array)
