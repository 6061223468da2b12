"""Checks of numbers that are given as arguments: each returns the value, or raises a ValueError that names the argument
and the value.

Python's and numpy's numbers count as numbers, bools do not.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def is_whole(value: Any, least: float = -math.inf) -> bool:
    """Whether `value` is an integer of at least `least`."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def is_real(value: Any) -> bool:
    """Whether `value` is a real number, finite or not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def number(what: str, value: Any, low: float = 0.0, high: float = math.inf, *, ends: str = "[)") -> float:
    """`value` as a float if it is a finite number between `low` and `high`.

    Args:
        what: the argument's name.
        value: a number, or a tensor or array of one.
        low, high: the limits.
        ends: "[" or "(" whether `low` itself is allowed, then "]" or ")" for `high`.
    """
    if isinstance(value, (torch.Tensor, np.ndarray)) and math.prod(value.shape) == 1:
        value = value.item()
    good = is_real(value) and math.isfinite(value) and low <= value <= high
    if not good or (value == low and ends[0] == "(") or (value == high and ends[1] == ")"):
        limits = f"{ends[0]}{low:g}, {high:g}{ends[1]}"
        wanted = "a finite number" if (low, high) == (-math.inf, math.inf) else f"a number in {limits}"
        raise ValueError(f"{what} must be {wanted}, found {value!r}.")
    return float(value)


def plain(what: str, value: Any, low: float = 0.0, high: float = math.inf, *, ends: str = "[)") -> int | float:
    """As `number`, for what a config shows as it was given: an int stays an int."""
    found = number(what, value, low, high, ends=ends)
    return int(value) if is_whole(value) else found


def finite(what: str, value: Any) -> int | float:
    """As `plain`, without limits."""
    return plain(what, value, -math.inf)


def whole(what: str, value: Any, least: int = 0) -> int:
    """`value` as an int if it is a whole number of at least `least`."""
    if not is_whole(value, least):
        wanted = "a positive integer" if least == 1 else f"a whole number of {least} or more"
        raise ValueError(f"{what} must be {wanted}, found {value!r}.")
    return int(value)


def positive(what: str, value: Any) -> int:
    """`value` as an int if it is a positive integer."""
    return whole(what, value, 1)


def frequency(what: str, value: Any, words: Sequence[str] = ("epoch",)) -> str | int:
    """`value` if it is one of `words`, or as an int if it is a number of batches."""
    if isinstance(value, str) and value in words:
        return value
    if not is_whole(value, 1):
        raise ValueError(f"{what} must be {', '.join(map(repr, words))} or a number of batches, found {value!r}.")
    return int(value)


def integer(what: str, value: Any) -> int | None:
    """`value` as an int if it is an integer, of whatever sign, or None."""
    if value is not None and not is_whole(value):
        raise ValueError(f"{what} must be an integer or None, found {value!r}.")
    return None if value is None else int(value)


def axis(value: Any, what: str = "axis") -> int:
    """`value` as an int if it is an integer, of whatever sign."""
    if not is_whole(value):
        raise ValueError(f"{what} must be an int, found {value!r}.")
    return int(value)


def flag(what: str, value: Any) -> bool:
    """`value` if it is a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{what} must be True or False, found {value!r}.")
    return bool(value)
