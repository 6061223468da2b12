"""Rates along a cosine: one half wave, perhaps after a warmup, or one after the other, each from the top."""

from __future__ import annotations

import math
from typing import Any

from fanin import arguments
from fanin.optimizers.schedules.base import Formula, family

_A_HAIR = 1e-12  # of a period: ln(243) / ln(3) is a little less than 5, and a restart must not come one step late


@family.entry()
class CosineDecay(Formula):
    """r ((1 - alpha) (1 + cos(pi t / decay_steps)) / 2 + alpha), with t at most decay_steps.

    With warmup_target, the rate first goes in a straight line from r to warmup_target, for warmup_steps; the cosine
    begins there, with warmup_target for r.

    Args:
        initial_learning_rate: r, 0 or more.
        decay_steps: the length of the half wave, more than 0; the warmup comes on top.
        alpha: the last rate as a share of the one at the top; 0 by default.
        name: for the config only.
        warmup_target: None, the default, is without a warmup.
        warmup_steps: 0 by default.

    Raises ValueError, naming the argument, for other values. After Keras's `keras.optimizers.schedules.CosineDecay`;
    Loshchilov and Hutter 2016.

    >>> schedule = CosineDecay(0.0, decay_steps=10, warmup_target=0.5, warmup_steps=4)
    >>> [schedule(step) for step in (0, 2, 4, 14, 100)]
    [0.0, 0.25, 0.5, 0.0, 0.0]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ):
        self.initial_learning_rate = arguments.plain("initial_learning_rate", initial_learning_rate)
        self.decay_steps = arguments.plain("decay_steps", decay_steps, ends="()")
        self.alpha = arguments.plain("alpha", alpha)
        self.name = name
        self.warmup_target = None if warmup_target is None else arguments.plain("warmup_target", warmup_target)
        self.warmup_steps = arguments.plain("warmup_steps", warmup_steps)

    def formula(self, step: Any, lib: Any) -> Any:
        """See the class."""
        if self.warmup_target is None:
            return self._wave(self.initial_learning_rate, step, lib)
        rise = (self.warmup_target - self.initial_learning_rate) / (self.warmup_steps or 1)
        warm = step < self.warmup_steps
        return lib.where(
            warm,
            self.initial_learning_rate + rise * step,
            self._wave(self.warmup_target, step - self.warmup_steps, lib),
        )

    def _wave(self, top: float, step: Any, lib: Any) -> Any:
        wave = (1 + lib.cos(math.pi * lib.clip(step, None, self.decay_steps) / self.decay_steps)) / 2
        return top * ((1 - self.alpha) * wave + self.alpha)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "alpha": self.alpha,
            "name": self.name,
            "warmup_target": self.warmup_target,
            "warmup_steps": self.warmup_steps,
        }


@family.entry()
class CosineDecayRestarts(Formula):
    """r ((1 - alpha) m_mul^i (1 + cos(pi p)) / 2 + alpha) at the share p of period i = 0, 1, ...

    The first period has first_decay_steps, every later one t_mul times those of the one before.

    Args:
        initial_learning_rate: r, 0 or more.
        first_decay_steps: more than 0.
        t_mul: more than 0, 2 by default. Below 1 the periods end after first_decay_steps / (1 - t_mul) steps, and the
            optimizer refuses the rate after that.
        m_mul: the top of a period as a share of that before; 1 by default.
        alpha: the lowest rate as a share of r; 0 by default.
        name: for the config only.

    Raises ValueError, naming the argument, for other values. After Keras's
    `keras.optimizers.schedules.CosineDecayRestarts`; Loshchilov and Hutter 2016.

    >>> schedule = CosineDecayRestarts(0.5, first_decay_steps=10)
    >>> [schedule(step) for step in (0, 5, 10, 20, 30)]
    [0.5, 0.25, 0.5, 0.25, 0.5]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ):
        self.initial_learning_rate = arguments.plain("initial_learning_rate", initial_learning_rate)
        self.first_decay_steps = arguments.plain("first_decay_steps", first_decay_steps, ends="()")
        self.t_mul = arguments.plain("t_mul", t_mul, ends="()")
        self.m_mul = arguments.plain("m_mul", m_mul)
        self.alpha = arguments.plain("alpha", alpha)
        self.name = name

    def formula(self, step: Any, lib: Any) -> Any:
        """See the class."""
        passed, ratio = step / self.first_decay_steps, float(self.t_mul)
        if ratio == 1:
            period = lib.floor(passed)
            share = passed - period
        else:
            period = lib.floor(lib.log(1 + passed * (ratio - 1)) / math.log(ratio) + _A_HAIR)
            share = (passed - (ratio**period - 1) / (ratio - 1)) / ratio**period
        wave = float(self.m_mul) ** period * (1 + lib.cos(math.pi * share)) / 2
        return self.initial_learning_rate * ((1 - self.alpha) * wave + self.alpha)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, in Keras's order."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "first_decay_steps": self.first_decay_steps,
            "t_mul": self.t_mul,
            "m_mul": self.m_mul,
            "alpha": self.alpha,
            "name": self.name,
        }
