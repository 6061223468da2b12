"""Weights in HDF5, in Keras's layout: written from tensors, read with suspicion.

A group of weights is `<path>/vars`, with datasets "0", "1", ... and the owner's name as attribute `name`:

::

    layers/dense/vars/0     kernel of the first Dense        (paths count classes, they do not use names)
    layers/dense_1/vars/0   kernel of the second
    optimizer/vars/0        iteration

Reading follows only names that the model implies, through hard links, to plain stored numbers of the planned shape and
dtype, and only by `hdf5_objects.py`. h5py writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn

from fanin.dtypes import dtype_name
from fanin.errors import MismatchError, TooLargeError, UnsafeError
from fanin.formats.faults import Faults
from fanin.formats.hdf5_objects import Array, Objects
from fanin.layers.base.adapted import Adapted
from fanin.layers.base.layer import Layer
from fanin.layers.base.own_variables import saved_weights
from fanin.registry import snake_case


@dataclass(frozen=True)
class Group:
    """The weights of one owner.

    Attributes:
        path: where they are, such as "layers/dense"; "" is the root.
        name: the owner's name, or None for one without.
        tensors: its weights, in their order, without those of adapters.
        keys: the names of their datasets; default "0", "1", ...
        owner: the module that they belong to, if it is one.
    """

    path: str
    name: str | None
    tensors: Sequence[torch.Tensor]
    keys: tuple[str, ...] | None = None
    owner: nn.Module | None = None

    @property
    def place(self) -> str:
        """The path of the group of datasets."""
        return f"{self.path}/vars" if self.path else "vars"

    def key(self, index: int) -> str:
        """The name of the dataset of one weight."""
        return str(index) if self.keys is None else self.keys[index]


@dataclass(frozen=True)
class Spec:
    """What one dataset must be: its shape and dtype; if not `exact`, any dtype of the same kind will do."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    exact: bool = True


def groups(module: nn.Module, path: str = "", seen: set[int] | None = None) -> Iterator[Group]:
    """The weights of a module and all inside it, as Keras places them: `layers` first, then attributes by name.

    Args:
        module: a model, or a part of one.
        path: where it is in the file.
        seen: ids of modules that are placed already; each is placed once. A weight that several modules have stands
            with each of them: readers want every layer whole.
    """
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    name = module.name if isinstance(module, Layer) else None
    tensors = saved_weights(module)
    if tensors or name is not None:
        yield Group(path, name, tensors, owner=module)
    for child_path, child in _children(module, path):
        yield from groups(child, child_path, seen)


def _children(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    base = f"{path}/" if path else ""
    listed = module._saved_layers() if isinstance(module, Layer) else []
    places = set(map(id, listed))
    yield from _numbered(listed, f"{base}layers")
    for name, child in sorted(module.named_children(), key=lambda pair: pair[0].replace("_", "~", 1)):
        if id(child) in places:
            continue
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _numbered(child.children(), f"{base}{name}")
        else:
            yield f"{base}{name}", child


def _numbered(modules: Iterable[nn.Module], path: str) -> Iterator[tuple[str, nn.Module]]:
    """Keras's names inside a list: the class in snake case, counted from the second on."""
    counts: dict[str, int] = {}
    for module in modules:
        name = snake_case(module.saved_as if isinstance(module, Adapted) else type(module).__name__)
        count = counts[name] = counts.get(name, -1) + 1
        yield f"{path}/{name}_{count}" if count else f"{path}/{name}", module


def write(placed: Iterable[Group], file: BinaryIO, attributes: Mapping[str, bytes] | None = None) -> None:
    """Write a weights file, with `attributes` on its root. The same groups give the same bytes."""
    import h5py

    with h5py.File(file, "w") as made:
        for key, value in (attributes or {}).items():
            made.attrs[key] = np.bytes_(value)
        for group in placed:
            part = made.create_group(group.place)
            if group.name is not None:
                part.attrs["name"] = group.name
            for index, tensor in enumerate(group.tensors):
                dataset = part.create_dataset(group.key(index), data=_as_array(tensor.detach().cpu().contiguous()))
                if tensor.dtype == torch.bfloat16:
                    dataset.attrs["dtype"] = "bfloat16"


def _as_array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The tensor's memory as an array; bfloat16, which numpy lacks, as opaque pairs of bytes, as Keras stores it."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view("V2")
    array: np.ndarray[Any, Any] = tensor.numpy()
    return array


class Reader:
    """A weights file, open for checks and reading.

    Args:
        data: the whole file.

    Raises FormatErrors that name the place in the file. What `check` and `dataset` let through, `read` can read.
    """

    def __init__(self, data: bytes):
        self.objects = Objects(data)

    def find(self, path: str) -> int | None:
        """The address of the object at `path`, reached by hard links only; None if there is none."""
        address = self.objects.root
        for name in filter(None, path.split("/")):
            target = self._group(address, path).get(name, -1)
            if target is None:
                raise UnsafeError(f"{path} is reached by a soft or external link.")
            if target < 0:
                return None
            address = target
        return address

    def names(self, path: str) -> list[str] | None:
        """The names in the group at `path`; None if there is no such group."""
        address = self.find(path)
        return None if address is None else list(self._group(address, path))

    def _group(self, address: int, path: str) -> dict[str, int | None]:
        links = self.objects.group(address)
        if links is None:
            raise MismatchError(f"{path}: expected a group.")
        return links

    def check(self, group: Group, specs: Sequence[Spec]) -> list[Array]:
        """The datasets of a group, compared with their specs: kind, links, storage, shape, dtype. Nothing is read.

        Raises one MismatchError for all that do not fit.
        """
        count = len(self.names(group.place) or ())
        if count != len(specs):
            raise MismatchError(f"{group.place} holds {count} weights, the model has {len(specs)} there.")
        faults, found = Faults(), []
        for index, spec in enumerate(specs):
            with faults.noted():
                found.append(self.dataset(f"{group.place}/{group.key(index)}", spec))
        faults.check()
        return found

    def any_dataset(self, path: str) -> tuple[Array, Spec]:
        """The dataset at `path`, whatever its shape and numbers, and what it is."""
        array = self._array(path)
        if array.shape is None or array.dtype is None:
            raise MismatchError(f"{path} is not made of numbers.")
        if array.dtype == np.dtype("V2"):
            dtype = torch.bfloat16
        else:
            dtype = torch.from_numpy(np.empty(0, array.dtype.newbyteorder("="))).dtype
        spec = Spec(array.shape, dtype)
        return self.dataset(path, spec), spec

    def _array(self, path: str) -> Array:
        address = self.find(path)
        if address is None:
            raise MismatchError(f"{path} is missing.")
        array = self.objects.array(address)
        if array is None:
            raise MismatchError(f"{path}: expected a dataset.")
        return array

    def dataset(self, path: str, spec: Spec) -> Array:
        """The dataset at `path`, compared with its spec."""
        array = self._array(path)
        if array.storage == "elsewhere":
            raise UnsafeError(f"{path} is stored in another file.")
        if array.shape != spec.shape:
            raise MismatchError(f"{path} has shape {array.shape}, the model has {spec.shape} there.")
        if not _fits(array.dtype, spec):
            raise MismatchError(f"{path} is not made of {dtype_name(spec.dtype)} numbers.")
        if array.storage == "chunked":
            raise MismatchError(f"{path} is stored in chunks or compressed, which Keras never does.")
        needed = math.prod(spec.shape) * _as_dtype(array).itemsize
        if needed > array.size:
            raise TooLargeError(f"{path} needs {needed} bytes and stores {array.size}.")
        return array

    def check_leftovers(self, placed: Iterable[Group]) -> None:
        """MismatchError if a list of layers in the file holds weights beside those of these groups."""
        known: dict[str, set[str]] = {}
        for group in placed:
            parent, _, name = group.path.rpartition("/")
            if parent.endswith("layers"):
                known.setdefault(parent, set()).add(name)
        for parent, names in known.items():
            others = set(self.names(parent) or ()) - names
            extra = sorted(name for name in others if not self._is_empty(f"{parent}/{name}"))
            if extra:
                raise MismatchError(f"{parent} holds weights of layers that the model does not have: {extra[:20]}.")

    def _is_empty(self, path: str) -> bool:
        """Whether the layer at `path` has no weights; Keras writes a group for it all the same."""
        return {*(self.names(path) or ())} <= {"vars"} and not self.names(f"{path}/vars")

    def read(self, array: Array, spec: Spec) -> torch.Tensor:
        """The values of a dataset that `check` gave, as a tensor of the spec's dtype."""
        kind = _as_dtype(array)
        values = np.frombuffer(self.objects.data, kind, math.prod(spec.shape), array.start).reshape(spec.shape)
        if kind == np.dtype("V2"):
            return torch.from_numpy(values.view("i2").copy()).view(torch.bfloat16).to(spec.dtype)
        if kind == np.dtype("?"):
            values = values.view("u1") != 0  # HDF5 does not promise 0 and 1
        return torch.from_numpy(values.astype(kind.newbyteorder("="))).to(spec.dtype)


def _as_dtype(array: Array) -> np.dtype[Any]:
    assert array.dtype is not None  # checked by `_fits`
    return array.dtype


def _fits(stored: np.dtype[Any] | None, spec: Spec) -> bool:
    """Whether numbers of this dtype, in either byte order, are what the spec asks for."""
    if stored is None:
        return False
    wanted = _as_array(torch.empty((), dtype=spec.dtype, device="cpu")).dtype
    return stored.newbyteorder("=") == wanted if spec.exact else _kind(stored) == _kind(wanted)


def _kind(dtype: np.dtype[Any]) -> str:
    return "f" if dtype.kind == "V" else dtype.kind
