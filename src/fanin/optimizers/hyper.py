"""Checks of hyper-parameters: each returns the value, or raises a ValueError naming the argument and the value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from fanin import config


def number(what: str, value: Any, low: float = 0.0, high: float = math.inf, *, ends: str = "[)") -> float:
    """`value` as a float if it is a finite number between `low` and `high`.

    Args:
        what: the argument's name.
        value: an int, float, numpy number or tensor of one number; not a bool.
        low, high: the limits.
        ends: "[" or "(" whether `low` itself is allowed, then "]" or ")" for `high`.
    """
    if isinstance(value, (torch.Tensor, np.ndarray)) and math.prod(value.shape) == 1:
        value = value.item()
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, np.bool_))
    good = good and math.isfinite(value) and low <= value <= high
    if not good or (value == low and ends[0] == "(") or (value == high and ends[1] == ")"):
        raise ValueError(f"{what} must be a number in {ends[0]}{low:g}, {high:g}{ends[1]}, found {value!r}.")
    return float(value)


def plain(what: str, value: Any, low: float = 0.0, high: float = math.inf, *, ends: str = "[)") -> int | float:
    """As `number`, for what a config shows as it was given: an int stays an int."""
    found = number(what, value, low, high, ends=ends)
    return int(value) if isinstance(value, (int, np.integer)) else found


def whole(what: str, value: Any, low: int) -> int:
    """`value` as an int if it is a whole number of `low` or more."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f"{what} must be a whole number of {low} or more, found {value!r}.")
    return int(value)


def learning_rate(value: Any) -> float:
    """A learning rate of 0 or more, rounded as Keras stores it: to float32, unless `floatx()` is float64."""
    found = number("learning_rate", value)
    return found if config.floatx() == "float64" else float(np.float32(found))


def flag(what: str, value: Any) -> bool:
    """`value` if it is a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{what} must be True or False, found {value!r}.")
    return bool(value)
