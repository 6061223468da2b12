"""Rates from a formula of the step: exponential, in pieces, a power, 1 / t. Letters: r the first rate, t the step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from fanin import arguments
from fanin.optimizers.schedules.base import Formula, family


@family.entry()
class ExponentialDecay(Formula):
    """r decay_rate^(t / decay_steps).

    Args:
        initial_learning_rate: r, 0 or more.
        decay_steps: how many steps one factor of decay_rate takes; more than 0.
        decay_rate: 0 or more.
        staircase: whether t / decay_steps is rounded down; False by default.
        name: for the config only.

    Raises ValueError, naming the argument, for other values. After Keras's
    `keras.optimizers.schedules.ExponentialDecay`.

    >>> ExponentialDecay(0.5, decay_steps=10, decay_rate=0.25)(5)
    0.25
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ):
        self.initial_learning_rate = arguments.plain("initial_learning_rate", initial_learning_rate)
        self.decay_steps = arguments.plain("decay_steps", decay_steps, ends="()")
        self.decay_rate = arguments.plain("decay_rate", decay_rate)
        self.staircase = arguments.flag("staircase", staircase)
        self.name = name

    def formula(self, step: Any, lib: Any) -> Any:
        """See the class."""
        parts = step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (lib.floor(parts) if self.staircase else parts)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
            "name": self.name,
        }


@family.entry()
class InverseTimeDecay(Formula):
    """r / (1 + decay_rate t / decay_steps).

    Args:
        initial_learning_rate: r, 0 or more.
        decay_steps: more than 0.
        decay_rate: 0 or more.
        staircase: whether t / decay_steps is rounded down; False by default.
        name: for the config only.

    Raises ValueError, naming the argument, for other values. After Keras's
    `keras.optimizers.schedules.InverseTimeDecay`.

    >>> InverseTimeDecay(0.5, decay_steps=10, decay_rate=2.0)(5)
    0.25
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ):
        self.initial_learning_rate = arguments.plain("initial_learning_rate", initial_learning_rate)
        self.decay_steps = arguments.plain("decay_steps", decay_steps, ends="()")
        self.decay_rate = arguments.plain("decay_rate", decay_rate)
        self.staircase = arguments.flag("staircase", staircase)
        self.name = name

    def formula(self, step: Any, lib: Any) -> Any:
        """See the class."""
        parts = step / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * (lib.floor(parts) if self.staircase else parts))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
            "name": self.name,
        }


@family.entry()
class PolynomialDecay(Formula):
    """(r - end_learning_rate) (1 - t / decay_steps)^power + end_learning_rate, with t at most decay_steps.

    With cycle, instead of stopping there, decay_steps is stretched to its first multiple that t does not exceed.

    Args:
        initial_learning_rate: r, 0 or more.
        decay_steps: more than 0.
        end_learning_rate: 0.0001 by default.
        power: 1 by default, a straight line.
        cycle: False by default.
        name: for the config only.

    Raises ValueError, naming the argument, for other values. After Keras's
    `keras.optimizers.schedules.PolynomialDecay`.

    >>> PolynomialDecay(0.5, decay_steps=10, end_learning_rate=0.25)(5)
    0.375
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ):
        self.initial_learning_rate = arguments.plain("initial_learning_rate", initial_learning_rate)
        self.decay_steps = arguments.plain("decay_steps", decay_steps, ends="()")
        self.end_learning_rate = arguments.plain("end_learning_rate", end_learning_rate)
        self.power = arguments.plain("power", power)
        self.cycle = arguments.flag("cycle", cycle)
        self.name = name

    def formula(self, step: Any, lib: Any) -> Any:
        """See the class."""
        last: Any = self.decay_steps
        if self.cycle:
            last = last * lib.clip(lib.ceil(step / last), 1, None)
        else:
            step = lib.clip(step, None, last)
        whole = self.initial_learning_rate - self.end_learning_rate
        return whole * (1 - step / last) ** self.power + self.end_learning_rate

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "end_learning_rate": self.end_learning_rate,
            "power": self.power,
            "cycle": self.cycle,
            "name": self.name,
        }


@family.entry()
class PiecewiseConstantDecay(Formula):
    """values[0] up to and including step boundaries[0], then values[1] up to boundaries[1], ..., at last values[-1].

    Args:
        boundaries: steps, each larger than the one before.
        values: rates, one more than there are boundaries.
        name: for the config only.

    Raises ValueError for lists that do not fit, are not in order, or hold bad numbers. After Keras's
    `keras.optimizers.schedules.PiecewiseConstantDecay`.

    >>> schedule = PiecewiseConstantDecay([100, 200], [0.5, 0.25, 0.125])
    >>> [schedule(step) for step in (100, 101, 1000)]
    [0.5, 0.25, 0.125]
    """

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant"):
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                f"values must be one more than boundaries, found {len(values)} values and {len(boundaries)} boundaries."
            )
        self.boundaries = [arguments.plain("boundaries", b, -math.inf, ends="()") for b in boundaries]
        if any(low >= high for low, high in itertools.pairwise(self.boundaries)):
            raise ValueError(f"boundaries must grow from one to the next, found {self.boundaries!r}.")
        self.values = [arguments.plain("values", value) for value in values]
        self.name = name

    def formula(self, step: Any, lib: Any) -> Any:
        """See the class."""
        rate = self.values[0] + 0 * step
        for boundary, value in zip(self.boundaries, self.values[1:], strict=True):
            rate = lib.where(step > boundary, float(value), rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {"boundaries": self.boundaries, "values": self.values, "name": self.name}
