"""The weights file inside an archive: HDF5 in Keras's layout, written from tensors and read with suspicion.

A group of weights is `<path>/vars`, with datasets "0", "1", ... and the owner's name as attribute `name`:

::

    layers/dense/vars/0     kernel of the first Dense        (paths count classes, they do not use names)
    layers/dense_1/vars/0   kernel of the second
    optimizer/vars/0        iteration

Reading follows only names that the model implies, through hard links, to plain stored numbers of the planned shape and
dtype. No attribute is read: HDF5 keeps strings where damage can make its C library loop.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fanin.dtypes import dtype_name
from fanin.errors import CorruptError, MismatchError, TooLargeError, UnsafeError
from fanin.layers.layer import Layer
from fanin.layers.variables import own_weights
from fanin.registry import snake_case

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BASE_ADDRESS = {0: 24, 1: 28, 2: 12, 3: 12}  # by the version of the superblock
_END_ADDRESS = {0: 40, 1: 44, 2: 28, 3: 28}


@dataclass(frozen=True)
class Group:
    """The weights of one owner.

    Attributes:
        path: where they are, such as "layers/dense"; "" is the root.
        name: the owner's name, or None for one without.
        tensors: its weights, in their order.
    """

    path: str
    name: str | None
    tensors: Sequence[torch.Tensor]

    @property
    def place(self) -> str:
        """The path of the group of datasets."""
        return f"{self.path}/vars" if self.path else "vars"


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
        seen: ids of modules and tensors that are placed already; each is placed once.
    """
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    tensors = [tensor for _, tensor in own_weights(module) if id(tensor) not in seen]
    seen.update(map(id, tensors))
    name = module.name if isinstance(module, Layer) else None
    if tensors or name is not None:
        yield Group(path, name, tensors)
    for child_path, child in _children(module, path):
        yield from groups(child, child_path, seen)


def _children(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    base = f"{path}/" if path else ""
    layers = getattr(module, "layers", None)  # what a model calls its layers
    listed = [layer for layer in layers if isinstance(layer, nn.Module)] if isinstance(layers, list) else []
    yield from _numbered(listed, f"{base}layers")
    for name, child in sorted(module.named_children(), key=lambda pair: pair[0].replace("_", "~", 1)):
        if any(child is layer for layer in listed):
            continue
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _numbered(child.children(), f"{base}{name}")
        else:
            yield f"{base}{name}", child


def _numbered(modules: Iterable[nn.Module], path: str) -> Iterator[tuple[str, nn.Module]]:
    """Keras's names inside a list: the class in snake case, counted from the second on."""
    counts: dict[str, int] = {}
    for module in modules:
        name = snake_case(type(module).__name__)
        count = counts[name] = counts.get(name, -1) + 1
        yield f"{path}/{name}_{count}" if count else f"{path}/{name}", module


def write(placed: Iterable[Group]) -> bytes:
    """The bytes of a weights file. The same groups give the same bytes."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for group in placed:
            made = file.create_group(group.place)
            if group.name is not None:
                made.attrs["name"] = group.name
            for index, tensor in enumerate(group.tensors):
                dataset = made.create_dataset(str(index), data=_as_array(tensor.detach().cpu().contiguous()))
                if tensor.dtype == torch.bfloat16:
                    dataset.attrs["dtype"] = "bfloat16"
    return buffer.getvalue()


def _as_array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The tensor's memory as an array; bfloat16, which numpy lacks, as opaque pairs of bytes, as Keras stores it."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view("V2")
    array: np.ndarray[Any, Any] = tensor.numpy()
    return array


class Reader:
    """A weights file, open for checks and reading; a context manager.

    Args:
        data: the whole file.

    Errors of HDF5 pass through `h5py` as they are: the caller turns them into FormatErrors.
    """

    def __init__(self, data: bytes):
        import h5py

        check_superblock(data)
        self._file = h5py.File(io.BytesIO(data), "r")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def count(self, path: str) -> int | None:
        """How many entries the group at `path` has; None if there is no such group."""
        found = self._open(path)
        return None if found is None else len(self._as_group(found, path))

    def check(self, group: Group, specs: Sequence[Spec]) -> list[Any]:
        """The datasets of a group, compared with their specs: kind, links, storage, shape, dtype. Nothing is read."""
        found = self.count(group.place)
        if (found or 0) != len(specs):
            raise MismatchError(f"{group.place} holds {found or 0} weights, the model has {len(specs)} there.")
        return [self._dataset(f"{group.place}/{index}", spec) for index, spec in enumerate(specs)]

    def check_leftovers(self, placed: Iterable[Group]) -> None:
        """MismatchError if a list of layers in the file holds more than these groups."""
        known: dict[str, set[bytes]] = {}
        for group in placed:
            parent, _, name = group.path.rpartition("/")
            if parent.endswith("layers"):
                known.setdefault(parent, set()).add(name.encode())
        for parent, names in known.items():
            found = self._open(parent)
            extra = sorted(set() if found is None else set(self._as_group(found, parent)) - names)
            if extra:
                raise MismatchError(f"{parent} holds weights of layers that the config does not have: {extra[:20]}.")

    def read(self, dataset: Any, spec: Spec) -> torch.Tensor:
        """The values of a dataset that `check` gave."""
        tensor = torch.empty(spec.shape, dtype=spec.dtype)
        if tensor.numel():
            dataset.read_direct(_as_array(tensor))
        return tensor

    def _open(self, path: str) -> Any:
        """The object at `path`, reached by hard links only; None if there is none."""
        import h5py

        found = self._file.id
        for part in path.split("/"):
            group = found if found is self._file.id else self._as_group(found, path)
            name = part.encode()
            if not group.links.exists(name):
                return None
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise UnsafeError(f"{path} is reached by a soft or external link.")
            found = h5py.h5o.open(group, name)
        return found

    def _as_group(self, found: Any, path: str) -> Any:
        import h5py

        if not isinstance(found, h5py.h5g.GroupID):
            raise MismatchError(f"{path}: expected a group.")
        return found

    def _dataset(self, path: str, spec: Spec) -> Any:
        import h5py

        found = self._open(path)
        if found is None:
            raise MismatchError(f"{path} is missing.")
        if not isinstance(found, h5py.h5d.DatasetID):
            raise MismatchError(f"{path}: expected a dataset.")
        plan = found.get_create_plist()
        layout = plan.get_layout()
        if layout == h5py.h5d.VIRTUAL or (layout == h5py.h5d.CONTIGUOUS and plan.get_external_count()):
            raise UnsafeError(f"{path} is stored in another file.")
        dataset = h5py.Dataset(found)
        if dataset.shape != spec.shape:
            raise MismatchError(f"{path} has shape {dataset.shape}, the model has {spec.shape} there.")
        _check_type(path, found, spec)
        if layout == h5py.h5d.CHUNKED or plan.get_nfilters():
            raise MismatchError(f"{path} is stored in chunks or compressed, which Keras never does.")
        needed, stored = math.prod(spec.shape) * found.get_type().get_size(), found.get_storage_size()
        if needed > stored:
            raise TooLargeError(f"{path} needs {needed} bytes and stores {stored}.")
        return dataset


def _check_type(path: str, found: Any, spec: Spec) -> None:
    """Only plain numbers: the planned dtype in either byte order, or, if not exact, any of its kind."""
    import h5py

    stored = found.get_type()
    kind = stored.get_class()
    wanted = _as_array(torch.empty((), dtype=spec.dtype)).dtype
    allowed = {"b": h5py.h5t.ENUM, "V": h5py.h5t.OPAQUE, "f": h5py.h5t.FLOAT, "c": h5py.h5t.COMPOUND}
    good = kind == allowed.get(wanted.kind, h5py.h5t.INTEGER) and not stored.committed()
    if good:
        dtype = found.dtype.newbyteorder("=")
        good = dtype == wanted if spec.exact else dtype.kind == wanted.kind and dtype.itemsize <= 8
    if not good:
        raise MismatchError(f"{path} is not made of {dtype_name(spec.dtype)} numbers.")


def check_superblock(data: bytes) -> None:
    """CorruptError unless the file begins at byte 0 and ends where it says: not truncated, nothing around it."""
    version = data[8] if len(data) > 64 and data[:8] == _SIGNATURE else -1
    if version not in _BASE_ADDRESS:
        raise CorruptError("not an HDF5 file.")
    base, end = (int.from_bytes(data[a : a + 8], "little") for a in (_BASE_ADDRESS[version], _END_ADDRESS[version]))
    if base != 0 or end != len(data):
        raise CorruptError(f"the HDF5 file says that it ends at byte {end} and has {len(data)}: it is truncated.")
