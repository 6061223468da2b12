"""Keras's `utils` that dense networks need."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from fanin.config import clear_session
from fanin.registry import (
    custom_object_scope,
    deserialize,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    serialize,
)

deserialize_keras_object = deserialize
serialize_keras_object = serialize


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


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """What `fit` hands to `train_step`: (x, y, sample_weight), or (x, y); without y x itself, a list of inputs as (x,).

    >>> pack_x_y_sample_weight(1, 2), pack_x_y_sample_weight(1), pack_x_y_sample_weight([1])
    ((1, 2), 1, ([1],))
    """
    if y is None:
        return (x,) if isinstance(x, (tuple, list)) else x
    return (x, y) if sample_weight is None else (x, y, sample_weight)


def unpack_x_y_sample_weight(data: Any) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) from what `train_step` gets, None for what is not there. More parts are a ValueError.

    >>> unpack_x_y_sample_weight((1, 2)), unpack_x_y_sample_weight(1)
    ((1, 2, None), (1, None, None))
    """
    parts = tuple(data) if isinstance(data, (tuple, list)) else (data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"unpack_x_y_sample_weight: expected x, y and sample_weight at most, found {len(parts)} parts."
        )
    return (*parts, None, None)[:3]


__all__ = [
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_registered_name",
    "get_registered_object",
    "pack_x_y_sample_weight",
    "register_keras_serializable",
    "serialize_keras_object",
    "set_random_seed",
    "to_categorical",
    "unpack_x_y_sample_weight",
]
