"""The learning rate of an optimizer: a number, or a schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from fanin import arguments, config
from fanin.optimizers.schedules import LearningRateSchedule


class Rate:
    """The part of an optimizer that knows the learning rate."""

    name: str
    _iterations: int
    _rate: float | Callable[..., Any]
    _takes_step: bool

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step. Assign a number, or a schedule; it counts from the next step on.

        Raises TypeError, as Keras does, where a number would replace a `LearningRateSchedule`.
        """
        if not callable(self._rate):
            return self._rate
        return checked_rate(self._rate(self._iterations) if self._takes_step else self._rate())

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        is_schedule = callable(value) and not isinstance(value, (Tensor, np.ndarray, np.generic))
        if not is_schedule and isinstance(self._rate, LearningRateSchedule):
            raise TypeError(
                f"{self.name}: the learning rate comes from {self._rate!r} and cannot be set to {value!r}. Assign "
                "another schedule, or make the optimizer with a number."
            )
        self._rate = value if is_schedule else checked_rate(value)
        self._takes_step = is_schedule and _takes_step(value)

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate comes from a schedule; it is then not part of the saved state."""
        return callable(self._rate)


def checked_rate(value: Any) -> float:
    """A learning rate of 0 or more, rounded as Keras stores it: to float32, unless `floatx()` is float64."""
    found = arguments.number("learning_rate", value)
    return found if config.floatx() == "float64" else float(np.float32(found))


def _takes_step(schedule: Callable[..., Any]) -> bool:
    """Whether a schedule wants the number of steps: all do but functions without arguments."""
    try:
        parameters = inspect.signature(schedule).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
