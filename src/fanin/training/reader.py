"""Reads the data arguments of `fit`, `evaluate` and `predict`: casts and checks them before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fanin.dtypes import widest_float
from fanin.errors import DataError
from fanin.graph.tree import leaves
from fanin.layers.base.convert import as_tensor, checked_cast
from fanin.training.data import Arrays, Batch, Stream

_CHUNK = 1 << 22  # numbers checked at once for NaN


class Reader:
    """Turns the data arguments of `fit`, `evaluate` and `predict` into Arrays or a Stream.

    Args:
        dtype: floats become this dtype; integers stay.
        device: where arrays are moved; None leaves them where they are.
        class_weight: class -> weight of its rows.
        finite: whether NaN and Inf are refused.
        batch_size: for a Dataset.
        shuffle: likewise.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        device: torch.device | None,
        class_weight: Mapping[int, float] | None = None,
        finite: bool = True,
        batch_size: int = 32,
        shuffle: bool = False,
    ):
        self.dtype = dtype
        self.device = device
        self.class_weight = class_weight
        self.finite = finite
        self.batch_size = batch_size
        self.shuffle = shuffle

    def read(self, x: Any, y: Any = None, sample_weight: Any = None) -> Arrays | Stream:
        """Arrays from arrays and a TensorDataset; a Stream from everything else that can be iterated over."""
        if isinstance(x, TensorDataset):
            parts = x.tensors
            return self.arrays(*parts[:3])
        if isinstance(x, IterableDataset):
            x = DataLoader(x, batch_size=self.batch_size)
        elif isinstance(x, Dataset):
            x = DataLoader(x, batch_size=self.batch_size, shuffle=self.shuffle)
        if isinstance(x, DataLoader) or _is_iterator(x):
            if y is not None or sample_weight is not None:
                raise ValueError(f"y and sample_weight come with the batches of a {type(x).__name__}; give x alone.")
            return Stream(x, self.batch)
        if x is None:
            raise ValueError("x is missing: give arrays, a Dataset, a DataLoader or a generator.")
        return self.arrays(x, y, sample_weight)

    def arrays(self, x: Any, y: Any = None, sample_weight: Any = None) -> Arrays:
        """Rows in memory, checked: equal lengths, finite numbers."""
        inputs = self._structure(x, "x")
        targets = None if y is None else self._structure(y, "y")
        rows = _rows(inputs, "x")
        if targets is not None:
            _same_length(targets, "y", rows)
        weight = self._weights(targets, sample_weight, rows)
        return Arrays(inputs, targets, weight, rows)

    def batch(self, item: Any, where: str) -> Batch:
        """One batch of a stream: x, (x, y) or (x, y, sample_weight)."""
        parts = tuple(item) if isinstance(item, (tuple, list)) else (item,)
        if len(parts) > 3:
            raise ValueError(f"{where}: expected (x, y) or (x, y, sample_weight), found {len(parts)} parts.")
        try:
            arrays = self.arrays(*parts)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        return Batch(arrays.x, arrays.y, arrays.weight, arrays.rows)

    def _structure(self, value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            return {key: self._structure(item, f"{name}[{key!r}]") for key, item in value.items()}
        if isinstance(value, (list, tuple)) and _are_arrays(value):
            return [self._structure(item, f"{name}[{i}]") for i, item in enumerate(value)]
        return None if value is None else self._tensor(value, name)

    def _tensor(self, value: Any, name: str) -> torch.Tensor:
        from_outside = not isinstance(value, torch.Tensor)
        tensor = as_tensor(value.toarray() if is_sparse(value) else value, name)
        if tensor.dim() == 0:
            raise DataError(f"{name}: expected one row for each sample, found a single number.")
        if tensor.is_floating_point():
            if self.finite:
                check_finite(tensor, name)
            tensor = checked_cast(tensor, self.dtype, name) if from_outside else tensor.to(self.dtype)
        return self._placed(tensor.detach())

    def _placed(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.device is None else tensor.to(self.device)

    def _weights(self, targets: Any, sample_weight: Any, rows: int) -> Any:
        if self.class_weight is not None:
            if sample_weight is not None:
                raise ValueError("Give class_weight or sample_weight, not both.")
            return self._placed(weights_of_classes(targets, self.class_weight).to(self.dtype))
        return None if sample_weight is None else self._sample_weight(sample_weight, "sample_weight", rows)

    def _sample_weight(self, given: Any, name: str, rows: int) -> Any:
        """One weight for each row, or a list or dict of such for the outputs; None for an output stays None."""
        if given is None:
            return None
        if isinstance(given, Mapping):
            return {key: self._sample_weight(item, f"{name}[{key!r}]", rows) for key, item in given.items()}
        if isinstance(given, (list, tuple)) and any(getattr(item, "ndim", 0) for item in given):
            return [self._sample_weight(item, f"{name}[{place}]", rows) for place, item in enumerate(given)]
        weight = as_tensor(given, name)
        _same_length(weight, name, rows)
        check_finite(weight, name)
        return self._placed(weight.to(self.dtype))


def is_sparse(value: Any) -> bool:
    """Whether this is one of scipy's sparse matrices, which become dense."""
    return hasattr(value, "toarray") and hasattr(value, "nnz")


def _are_arrays(values: Sequence[Any]) -> bool:
    """Whether this is a list of arrays, one for each input or output; None for an output without targets. Beside
    arrays there may be lists and dicts of arrays."""
    given = [item for item in values if item is not None]
    arrays = [hasattr(item, "shape") and item.ndim > 0 for item in given]
    return any(arrays) and all(map(_is_structure, given))


def _is_structure(item: Any) -> bool:
    if isinstance(item, (list, tuple)):
        return _are_arrays(item)
    return isinstance(item, Mapping) or (hasattr(item, "shape") and item.ndim > 0)


def _is_iterator(value: Any) -> bool:
    if is_sparse(value):
        return False
    iterable = hasattr(value, "__iter__") or hasattr(value, "__getitem__")
    arrays = (np.ndarray, torch.Tensor, list, tuple, Mapping, str)
    return iterable and not isinstance(value, arrays) and not hasattr(value, "__array__")


def _rows(structure: Any, name: str) -> int:
    sizes = {leaf.shape[0] for leaf in leaves(structure) if leaf is not None}
    if len(sizes) != 1:
        raise DataError(f"The arrays of {name} have different numbers of rows: {sorted(sizes)}.")
    return int(sizes.pop())


def _same_length(structure: Any, name: str, rows: int) -> None:
    for leaf in (leaf for leaf in leaves(structure) if leaf is not None):
        found = leaf.shape[0] if leaf.dim() else 0
        if found != rows:
            raise DataError(f"x has {rows} rows, {name} has {found}.")


def check_finite(tensor: torch.Tensor, name: str) -> None:
    """DataError that names the first row with NaN or Inf, if there is one."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    if all(map(torch.isfinite, torch.aminmax(tensor))):  # aminmax propagates NaN; it is one pass without a temporary
        return
    step = max(1, _CHUNK * tensor.shape[0] // tensor.numel())
    for start in range(0, tensor.shape[0], step):
        part = tensor[start : start + step]
        good = torch.isfinite(part)
        if not bool(good.all()):
            place = (~good).nonzero()[0].tolist()
            value = part[tuple(place)].item()
            place[0] += start
            where = f"row {place[0]}" + (f", position {tuple(place[1:])}" if place[1:] else "")
            raise DataError(
                f"{name}: {where} holds {value}. Clean the data first; training on it would spoil the weights."
            )


def weights_of_classes(targets: Any, class_weight: Mapping[int, float]) -> torch.Tensor:
    """A weight for each row from its class: the argmax of one-hot rows, else the label; classes not named weigh 1."""
    if not isinstance(targets, torch.Tensor):
        raise ValueError("class_weight needs one array of targets.")
    if not isinstance(class_weight, Mapping):
        raise ValueError(f"class_weight: expected a dict of class number to weight, found {class_weight!r}.")
    if not all(_is_whole(key) for key in class_weight):
        raise ValueError(f"class_weight: expected a dict of class number to weight, found keys {list(class_weight)}.")
    one_hot = targets.dim() > 1 and targets.shape[-1] > 1
    if not one_hot and targets.numel() != targets.shape[0]:
        raise ValueError(f"class_weight: expected one class for each row, found y of shape {tuple(targets.shape)}.")
    labels = targets.argmax(-1) if one_hot else targets.reshape(targets.shape[0])
    labels = labels.round().long() if labels.is_floating_point() else labels.long()
    weights = torch.ones(labels.shape, dtype=widest_float(labels.device), device=labels.device)
    for label, weight in class_weight.items():
        weights[labels == int(label)] = float(weight)
    return weights


def _is_whole(key: Any) -> bool:
    """Whether this is a class: 1, or 1.0 as in numpy.unique of labels that are floats."""
    return isinstance(key, (int, np.integer)) or (isinstance(key, (float, np.floating)) and float(key).is_integer())
