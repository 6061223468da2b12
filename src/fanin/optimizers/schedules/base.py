"""What a schedule is, the family of all of them, and how a formula serves both numbers and tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanin import config
from fanin.dtypes import widest_float
from fanin.registry import Family


class LearningRateSchedule:
    """The base of schedules: a learning rate from the number of steps made so far. Override `__call__`.

    An optimizer calls its schedule with an int. A schedule can be saved if it has `get_config` and its class is
    registered. After Keras's `keras.optimizers.schedules.LearningRateSchedule`.

    >>> class Slower(LearningRateSchedule):
    ...     def __call__(self, step):
    ...         return 0.5 / (1 + step)
    >>> from fanin.optimizers import SGD
    >>> SGD(Slower()).learning_rate
    0.5
    """

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps. NotImplementedError unless overridden."""
        raise NotImplementedError(f"Schedule {type(self).__name__} does not say its rate: give it __call__(step).")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain JSON data. NotImplementedError unless overridden."""
        raise NotImplementedError(f"Schedule {type(self).__name__} cannot be saved: give it get_config().")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The schedule that `get_config` described."""
        return cls(**config)


class Formula(LearningRateSchedule):
    """A schedule written once, in functions that numpy and torch share.

    Called with an int, it gives a float; called with a 0-dim tensor, a 0-dim tensor on that device, by torch operations
    alone, so that a compiled step can hold it: float32, or float64 if that is `floatx()`. Both are worked out in
    float64 (on MPS in float32).
    """

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps."""
        if isinstance(step, Tensor):
            outer = torch.float64 if config.floatx() == "float64" else torch.float32
            rate: Tensor = self.formula(step.to(widest_float(step.device)), torch)
            return rate.to(outer)
        with np.errstate(all="ignore"):  # what is not finite, the optimizer refuses
            return float(self.formula(np.float64(step), np))

    def formula(self, step: Any, lib: Any) -> Any:
        """The rate from a float64, in functions of `lib`: numpy or torch."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items() if name != "name")
        return f"{type(self).__name__}({shown})"


family: Family[LearningRateSchedule] = Family(
    "learning-rate schedule", "keras.optimizers.schedules", LearningRateSchedule
)
