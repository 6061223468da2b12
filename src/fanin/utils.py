"""Keras's `utils` that dense networks need."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from fanin import arguments
from fanin.config import clear_session, epsilon, floatx
from fanin.dtypes import as_dtype
from fanin.graph.symbolic import is_keras_tensor
from fanin.layers.base.convert import as_tensor
from fanin.missing_names import explain
from fanin.registry import (
    custom_object_scope,
    deserialize,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    serialize,
)

if not TYPE_CHECKING:  # which would then take every name for known
    __getattr__ = explain(__name__)

CustomObjectScope = custom_object_scope
deserialize_keras_object = deserialize
serialize_keras_object = serialize


def set_random_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's random numbers. A negative seed or no integer is a ValueError."""
    if not arguments.is_whole(seed, 0):
        raise ValueError(f"set_random_seed: expected a whole number of 0 or more, found {seed!r}.")
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


def normalize(x: Any, axis: int = -1, order: float = 2) -> Any:
    """`x` divided by its norms along an axis: a tensor for a tensor, else a numpy array, of the same shape.

    Args:
        x: an array (...) of numbers.
        axis: along which each norm is taken.
        order: of the norm: 2 for the root of squares, 1 for the sum of absolute values, numpy.inf for the largest.

    Zeros stay zeros. Integers become floats. Raises ValueError for an order that is not positive, and for no
    axis or several.

    >>> normalize([[3, 4], [0, 0]]).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    if not order > 0:
        raise ValueError(f"normalize: expected a positive order, found {order!r}.")
    if not arguments.is_whole(axis):
        raise ValueError(f"normalize: expected the number of an axis, found {axis!r}.")
    if isinstance(x, torch.Tensor):
        numbers = x if x.is_floating_point() else x.to(as_dtype(floatx()))
        norm = torch.linalg.vector_norm(numbers, order, dim=axis, keepdim=True)
        return numbers / norm.clamp(min=epsilon())
    array = np.asarray(x)
    norms = np.linalg.norm(array, order, axis, keepdims=True)
    return array / np.where(norms == 0, 1, norms)


def pad_sequences(
    sequences: Sequence[Any],
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: Literal["pre", "post"] = "pre",
    truncating: Literal["pre", "post"] = "pre",
    value: Any = 0.0,
) -> np.ndarray[Any, Any]:
    """Sequences of different lengths as the rows of one numpy array (N, maxlen, ...).

    Args:
        sequences: N lists or arrays; each step is a number, or an array of one shape for all.
        maxlen: the length of the rows, default that of the longest sequence.
        dtype: numpy's dtype of the rows; `object` for strings.
        padding: "pre" or "post": where short sequences are filled up with `value`.
        truncating: "pre" or "post": where long ones lose their steps.
        value: what fills up.

    Raises ValueError, with the position, for what is no sequence and for steps of another shape.

    >>> pad_sequences([[1], [2, 3, 4]], maxlen=2).tolist()
    [[0, 1], [3, 4]]
    """
    for name, where in (("padding", padding), ("truncating", truncating)):
        if where not in ("pre", "post"):
            raise ValueError(f"pad_sequences: {name} must be 'pre' or 'post', found {where!r}.")
    for i, sequence in enumerate(sequences):
        if not hasattr(sequence, "__len__"):
            raise ValueError(f"pad_sequences: expected a list of sequences, found {sequence!r} at position {i}.")
    if isinstance(value, str) and np.dtype(dtype).kind not in "OSU":
        raise ValueError(f"pad_sequences: value {value!r} does not fit dtype {dtype!r}; strings take dtype=object.")
    if maxlen is None:
        maxlen = max(map(len, sequences), default=0)
    step = next((np.asarray(sequence).shape[1:] for sequence in sequences if len(sequence)), ())
    rows = np.full((len(sequences), maxlen, *step), value, dtype=dtype)
    for i, sequence in enumerate(sequences):
        kept = sequence[max(len(sequence) - maxlen, 0) :] if truncating == "pre" else sequence[:maxlen]
        if len(kept):
            steps = np.asarray(kept, dtype=dtype)
            if steps.shape[1:] != step:
                raise ValueError(
                    f"pad_sequences: expected steps of shape {step}, found {steps.shape[1:]} at position {i}."
                )
            begin = 0 if padding == "post" else maxlen - len(kept)
            rows[i, begin : begin + len(kept)] = steps
    return rows


def split_dataset(
    dataset: Any,
    left_size: float | None = None,
    right_size: float | None = None,
    shuffle: bool = False,
    seed: int | None = None,
) -> tuple[Subset[Any], Subset[Any]]:
    """The first and the last rows of some data, as two `torch.utils.data.Dataset`s that share its memory.

    Args:
        dataset: an array or tensor, a list or tuple of them with equally many rows, or a Dataset with a length.
        left_size: how many rows are on the left, or as a float what part of them; default all that are not right.
        right_size: the same on the right; default all that are not left.
        shuffle: whether rows are drawn at random, and not in their order.
        seed: gives the same draw again.

    Raises ValueError for sizes that leave a side empty or exceed the data, and for arrays of different lengths.

    >>> left, right = split_dataset(np.arange(5), left_size=0.6)
    >>> [int(x) for x, in left], len(right)
    ([0, 1, 2], 2)
    """
    if not isinstance(dataset, Dataset):
        arrays = dataset if isinstance(dataset, (list, tuple)) else [dataset]
        tensors = [as_tensor(array, "split_dataset") for array in arrays]
        lengths = [len(tensor) if tensor.ndim else 0 for tensor in tensors]
        if len(set(lengths)) != 1:
            raise ValueError(f"split_dataset: expected arrays with equally many rows, found {lengths}.")
        dataset = TensorDataset(*tensors)
    count = len(dataset)
    if left_size is None and right_size is None:
        raise ValueError("split_dataset: expected left_size or right_size, found neither.")
    before, after = _rows_of("left_size", left_size, count), _rows_of("right_size", right_size, count)
    before = count - after if left_size is None else before
    after = count - before if right_size is None else after
    left, end = round(before), round(before + after)
    if not 0 < left < end <= count:
        raise ValueError(f"split_dataset: of {count} rows, the sides would get {left} and {end - left}.")
    order = list(range(count))
    if shuffle:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        order = torch.randperm(count, generator=generator, device="cpu").tolist()
    return Subset(dataset, order[:left]), Subset(dataset, order[count - (end - left) :])


def _rows_of(name: str, size: Any, count: int) -> float:
    """How many of `count` rows a size means, not rounded; 0 for None."""
    if size is None:
        return 0.0
    whole = arguments.is_whole(size)
    part = isinstance(size, (float, np.floating))
    if not (whole and 0 < size < count) and not (part and 0 < size < 1):
        raise ValueError(
            f"split_dataset: {name} must be a number of rows below {count} or a part between 0 and 1, found {size!r}."
        )
    return float(size) if whole else float(size) * count


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
    "CustomObjectScope",
    "clear_session",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "is_keras_tensor",
    "normalize",
    "pack_x_y_sample_weight",
    "pad_sequences",
    "register_keras_serializable",
    "serialize_keras_object",
    "set_random_seed",
    "split_dataset",
    "to_categorical",
    "unpack_x_y_sample_weight",
]
