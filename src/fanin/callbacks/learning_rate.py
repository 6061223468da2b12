"""The learning rates of an optimizer, read and set in one way: ours has one, torch's one for each parameter group."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch


def rates(optimizer: Any) -> dict[str, float]:
    """The learning rates by the names that logs have: "learning_rate", or "learning_rate_0", ... if there are more.

    Raises TypeError for what has none.

    >>> layer = torch.nn.Linear(2, 2)
    >>> rates(torch.optim.SGD(layer.parameters(), lr=0.1))
    {'learning_rate': 0.1}
    >>> rates(torch.optim.SGD([{"params": layer.weight}, {"params": layer.bias, "lr": 0.2}], lr=0.1))
    {'learning_rate_0': 0.1, 'learning_rate_1': 0.2}
    """
    if isinstance(optimizer, torch.optim.Optimizer):
        found = [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
    else:
        found = [float(optimizer.learning_rate)] if hasattr(optimizer, "learning_rate") else []
    if not found:
        raise TypeError(f"Expected an optimizer with a learning rate, found {optimizer!r}.")
    if len(found) == 1:
        return {"learning_rate": found[0]}
    return {f"learning_rate_{number}": rate for number, rate in enumerate(found)}


def change_rates(optimizer: Any, change: Callable[[float], Any]) -> None:
    """Set each learning rate to what `change` makes of it.

    Raises TypeError for an optimizer whose rate comes from a schedule, and ValueError for a rate that is not a finite
    number of 0 or more; nothing is changed then.
    """
    if getattr(optimizer, "has_schedule", False):
        raise TypeError(
            f"The learning rate of {optimizer!r} comes from a schedule, so a callback cannot set it; give it a number."
        )
    found = [_checked(change(rate)) for rate in rates(optimizer).values()]
    if not isinstance(optimizer, torch.optim.Optimizer):
        optimizer.learning_rate = found[0]
        return
    for group, rate in zip((g for g in optimizer.param_groups if "lr" in g), found, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)  # a captured graph reads this very tensor
        else:
            group["lr"] = rate


def _checked(value: Any) -> float:
    try:
        rate = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        rate = math.nan
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"A learning rate must be a finite number of 0 or more, found {value!r}.")
    return rate
