"""`.safetensors`: the `state_dict` of any module.

::

    8 bytes             the size of the header, little endian
    the header, JSON    {"__metadata__": {"format": "pt", ...},
                         "0.kernel": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}, ...}
    the numbers         one tensor after another, without holes

A tensor that has several names is stored under the first; the metadata says which other names it has, as
`safetensors.torch.save_model` writes it and `load_model` reads it. The metadata also holds the sha256 of the numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fanin.dtypes import dtype_name
from fanin.errors import CorruptError, FormatError, MismatchError, TooLargeError
from fanin.formats import limits
from fanin.formats.faults import Faults
from fanin.write import replacing

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_METADATA, _CHECKSUM = "__metadata__", "sha256"
_RANK = 64


# --- saving -----------------------------------------------------------------------------------------------------------


def save(module: nn.Module, path: Path) -> None:
    """Write the `state_dict` of a module whose parameters all have shapes."""
    stored, shared = _unique(module)
    header: dict[str, Any] = {_METADATA: {}}
    place, checksum = 0, hashlib.sha256()
    for name, tensor in sorted(stored.items(), key=lambda item: -item[1].itemsize):  # so that all are aligned
        size = tensor.numel() * tensor.itemsize
        offsets = [place, place + size]
        header[name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        checksum.update(_bytes(tensor))
        place += size
    header[_METADATA] = {"format": "pt", "fanin_version": version("fanin"), _CHECKSUM: checksum.hexdigest(), **shared}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    limits.parse_json(encoded)  # what cannot be read back is not written
    with replacing(path) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in header:
            if name != _METADATA:
                file.write(_bytes(stored[name]))


def _unique(module: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of the state_dict, each once under its first name, and further name -> first name."""
    firsts: dict[Any, str] = {}
    stored: dict[str, torch.Tensor] = {}
    shared: dict[str, str] = {}
    for name, value in module.state_dict().items():
        fault = _fault(name, value)
        if fault:
            raise ValueError(f"Cannot save {name!r} of {type(module).__name__}: {fault}.")
        key = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype, value.device)
        if value.numel() and key in firsts:
            shared[name] = firsts[key]
        else:
            firsts[key] = name
            stored[name] = value
    return stored, shared


def _fault(name: str, value: Any) -> str:
    """Why the format cannot hold a value, or ""."""
    if not isinstance(value, torch.Tensor):
        return f"it is a {type(value).__name__}, not a tensor"
    if is_lazy(value):
        return "it has no shape yet: call the model once"
    if value.device.type == "meta":
        return "it has no values, on the meta device"
    if value.layout != torch.strided or value.dtype not in _CODES:
        return f"the format has no {value.dtype} tensors of layout {value.layout}"
    return "the format keeps this name for itself" if name == _METADATA else ""


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


# --- loading ----------------------------------------------------------------------------------------------------------


class TensorPlan:
    """Which tensors of a file go into a module's `state_dict`. Making one changes nothing.

    Args:
        module: a module whose parameters all have shapes.
        path: the file.
        skip_mismatch: whether to leave out what does not fit.

    Names, shapes and dtypes are compared before any number is read. Raises FormatErrors that name the file.

    Attributes:
        faults: what does not fit, and is left out.
        note: always "".
    """

    def __init__(self, module: nn.Module, path: str, skip_mismatch: bool = False):
        self.faults = Faults()
        self.note = ""
        self._module = module
        with limits.open_regular(path) as file:
            with limits.naming(path, "header", CorruptError):
                entries, metadata, start = read_header(file)
            with limits.naming(path, "tensors"):
                self._names = self._compare(entries, metadata)
                if not skip_mismatch:
                    self.faults.check()
            self._data = bytearray(os.fstat(file.fileno()).st_size - start)
            file.seek(start)
            count = file.readinto(self._data)
        with limits.naming(path, "tensors", CorruptError):
            self._entries = entries
            wanted = metadata.get(_CHECKSUM)
            if count != max((entry.end for entry in entries.values()), default=0):
                raise CorruptError("the file changed while it was read.")
            if wanted is not None and hashlib.sha256(self._data).hexdigest() != wanted:
                raise CorruptError("the checksum is wrong: the bytes have changed since they were written.")

    def _compare(self, entries: dict[str, Entry], metadata: dict[str, str]) -> dict[str, str]:
        """Name in the module -> name in the file, of all that fits."""
        own = self._module.state_dict()
        fitting: dict[str, str] = {}
        for name, value in own.items():
            source = name if name in entries else metadata.get(name, name)
            entry = entries.get(source)
            with self.faults.noted():
                if entry is None:
                    raise MismatchError(f"{name!r} is missing.")
                if not isinstance(value, torch.Tensor) or tuple(value.shape) != entry.shape:
                    shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
                    raise MismatchError(f"{name!r} has shape {entry.shape}, the model has {shape} there.")
                if entry.dtype != value.dtype and not (entry.dtype.is_floating_point and value.is_floating_point()):
                    raise MismatchError(
                        f"{name!r} is made of {dtype_name(entry.dtype)} numbers, the model has "
                        f"{dtype_name(value.dtype)} there."
                    )
                fitting[name] = source
        used = {name if name in entries else metadata.get(name, name) for name in own}
        self.faults.found += [f"{name!r} is not part of the model" for name in entries if name not in used]
        return fitting

    def carry_out(self) -> None:
        """Write all values into the module."""
        values = {name: self._entries[source].read(self._data) for name, source in self._names.items()}
        with torch.no_grad():
            self._module.load_state_dict(values, strict=False)


class Entry:
    """One tensor of a file: dtype, shape, and its first and last byte among the numbers."""

    def __init__(self, described: Any):
        if not isinstance(described, dict) or set(described) != {"dtype", "shape", "data_offsets"}:
            raise CorruptError("expected dtype, shape and data_offsets.")
        if not isinstance(described["dtype"], str) or described["dtype"] not in _DTYPES:
            raise MismatchError(f"{str(described['dtype'])[:40]!r} is no dtype that fanin knows.")
        shape, offsets = _numbers(described["shape"]), _numbers(described["data_offsets"])
        if len(shape) > _RANK or len(offsets) != 2:
            raise CorruptError(f"{len(shape)} dimensions and {len(offsets)} offsets.")
        self.dtype = _DTYPES[described["dtype"]]
        self.shape = tuple(shape)
        self.start, self.end = offsets
        if 0 in shape and math.prod(size for size in shape if size) >= 2**63:
            raise TooLargeError(f"the shape {self.shape} is no shape of a tensor.")
        if self.end - self.start != math.prod(shape) * self.dtype.itemsize:
            raise CorruptError(f"shape {self.shape} does not take the bytes from {self.start} to {self.end}.")

    def read(self, data: bytearray) -> torch.Tensor:
        """The tensor, in the memory of `data`."""
        if self.start == self.end:
            return torch.empty(self.shape, dtype=self.dtype, device="cpu")
        flat = torch.frombuffer(data, dtype=torch.uint8, count=self.end - self.start, offset=self.start)
        if self.dtype == torch.bool:
            return (flat != 0).reshape(self.shape)
        if self.start % self.dtype.itemsize:
            flat = flat.clone()
        return flat.view(self.dtype).reshape(self.shape)


def read_header(file: BinaryIO) -> tuple[dict[str, Entry], dict[str, str], int]:
    """The tensors by name, the metadata, and where the numbers begin; the whole file accounted for."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise CorruptError(f"the header claims {length} bytes in a file of {size}: not safetensors, or truncated.")
    if length > limits.JSON_BYTES:
        raise TooLargeError(f"a header of {length} bytes, at most {limits.JSON_BYTES} are read.")
    encoded = file.read(length)
    if encoded[:1] != b"{":
        raise CorruptError("the header does not begin with '{'.")
    described = limits.parse_json(encoded)
    metadata = described.pop(_METADATA, {})
    if not isinstance(metadata, dict) or any(not isinstance(value, str) for value in metadata.values()):
        raise CorruptError("the metadata is not made of strings.")
    entries = {}
    for name, value in described.items():
        try:
            entries[name] = Entry(value)
        except FormatError as error:
            raise type(error)(f"{name[:100]!r}: {error}") from None
    place = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != place:
            raise CorruptError(f"the bytes from {min(place, entry.start)} on belong to no tensor, or to two.")
        place = entry.end
    if 8 + length + place != size:
        raise CorruptError(f"the tensors end at byte {8 + length + place} of {size}: truncated, or bytes behind them.")
    return entries, metadata, 8 + length


def _numbers(value: Any) -> list[int]:
    good = isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )
    if not good:
        raise CorruptError(f"expected a list of whole numbers, found {str(value)[:60]}.")
    return list(value)
