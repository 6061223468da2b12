"""Layers that say themselves what a weights file holds of them: `save_own_variables` and `load_own_variables`.

Their code is the user's; what it gets is data: the arrays of one group, checked, no larger than what the file stores.
Before anything is read into a model, it is tried on copies of these layers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fanin.errors import CorruptError, FormatError, MismatchError
from fanin.formats.hdf5 import Group, Reader
from fanin.layers.base.layer import Layer
from fanin.layers.base.variables import to_numpy


def as_saved(group: Group) -> Group:
    """The group with what its owner's own `save_own_variables` says, if it has one.

    TypeError for a value that is not numbers, ValueError for a name that HDF5 would read as a path.
    """
    if not isinstance(group.owner, Layer) or not group.owner._saves_itself():
        return group
    store: dict[str, Any] = {}
    group.owner.save_own_variables(store)
    who = f"Layer {group.owner.name!r} cannot be saved: its save_own_variables() stores"
    for key in store:
        if not isinstance(key, str) or not key.isprintable() or "/" in key or key in ("", "."):
            raise ValueError(f"{who} {key!r}, which is no name without '/'.")
    tensors = [_numbers(f"{who} {key!r}", value) for key, value in store.items()]
    return replace(group, tensors=tensors, keys=tuple(store))


def _numbers(who: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    try:
        return torch.from_numpy(np.array(value))
    except (TypeError, ValueError):
        raise TypeError(f"{who}, a {type(value).__name__} that is not made of numbers.") from None


class Stored(Mapping[str, np.ndarray[Any, Any]]):
    """What a file holds of one layer: arrays by name, each read, into memory of its own, when it is asked for.

    All are checked at once: that they are plain numbers, and that together they take no more bytes than the file has.
    """

    def __init__(self, reader: Reader, place: str):
        self.place = place
        self._reader = reader
        self._arrays = {name: reader.any_dataset(f"{place}/{name}") for name in reader.names(place) or ()}
        if sum(array.size for array, _ in self._arrays.values()) > len(reader.objects.data):
            raise CorruptError(f"{place}: its arrays overlap.")

    def __getitem__(self, key: str) -> np.ndarray[Any, Any]:
        return to_numpy(self._reader.read(*self._arrays[key]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def load(layer: Layer, store: Stored) -> None:
    """Let a layer read; a MismatchError names it and what it raised. A FormatError of the file passes."""
    try:
        with torch.no_grad():
            layer.load_own_variables(store)
    except (FormatError, MemoryError):
        raise
    except Exception as error:
        what = f"has no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise MismatchError(f"{store.place}: load_own_variables() of layer {layer.name!r}: {what}") from error


def attempt(layer: Layer, store: Stored) -> None:
    """`load` into a copy of the layer, so that nothing has changed where it fails."""
    load(copy.deepcopy(layer), store)
