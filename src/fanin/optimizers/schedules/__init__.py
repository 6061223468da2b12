"""Learning-rate schedules: a rate for each step, with Keras's arguments, formulas and files.

Given to an optimizer as its learning rate, a schedule is called with the number of steps made so far.

>>> from fanin.optimizers import SGD
>>> SGD(ExponentialDecay(0.5, decay_steps=10, decay_rate=0.5)).learning_rate
0.5
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanin.optimizers.schedules.base import LearningRateSchedule, family
from fanin.optimizers.schedules.cosine import CosineDecay, CosineDecayRestarts
from fanin.optimizers.schedules.decay import (
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
)

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "deserialize",
    "serialize",
]


def serialize(learning_rate_schedule: Any) -> Any:
    """The JSON of a schedule, in Keras's form.

    Raises ValueError, with the way out, for a lambda and for what has no `get_config` or the name of one of fanin's.
    """
    return family.serialize(learning_rate_schedule)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The schedule that `serialize`, here or in Keras, described.

    Args:
        config: a config.
        custom_objects: names of your own classes and functions, for this call.

    Raises ValueError for a name that is not known, TypeError for what is no schedule.
    """
    return family.deserialize(config, custom_objects)
