"""Keras's `utils` that dense networks need."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from fanin.config import clear_session


def set_random_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's random numbers. A negative seed or no integer is a ValueError."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"set_random_seed: expected a whole number, found {seed!r}.")
    random.seed(int(seed))
    np.random.seed(int(seed) % 2**32)
    torch.manual_seed(int(seed))


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray[Any, Any]:
    """One-hot rows (..., C) float32 from class numbers (...); C is the largest number plus one unless given.

    >>> to_categorical([0, 2]).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    labels = np.asarray(x, dtype=np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    count = int(labels.max(initial=-1)) + 1 if num_classes is None else num_classes
    if labels.size and (labels.min() < 0 or labels.max() >= count):
        raise ValueError(
            f"to_categorical: expected class numbers from 0 to {count - 1}, found {labels.min()} to {labels.max()}."
        )
    return np.eye(count, dtype=np.float32)[labels]


__all__ = ["clear_session", "set_random_seed", "to_categorical"]
