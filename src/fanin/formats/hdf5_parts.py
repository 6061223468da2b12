"""The small parts of HDF5: bytes in order, links, shapes, and the types of numbers."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from fanin.errors import CorruptError, MismatchError

NOWHERE = 2**64 - 1  # the address of what does not exist


class Window:
    """The bytes of a file, handed out by address; in total not much more than there are."""

    def __init__(self, data: bytes):
        self._data = data
        self._left = 8 * len(data)

    def at(self, address: int, size: int, signature: bytes = b"") -> Cursor:
        """`size` bytes of the file without its signature, if they are there. Else a CorruptError."""
        if address + size > len(self._data):
            raise CorruptError("an address or a length points outside the file.")
        self.spend(size + 8)
        part = Cursor(self._data[address : address + size])
        if part.take(len(signature)) != signature:
            raise CorruptError(f"{signature.decode()!r} is not where it should be.")
        return part

    def spend(self, size: int) -> None:
        """Count bytes that are read again; CorruptError if they become many."""
        self._left -= size
        if self._left < 0:
            raise CorruptError("its parts overlap.")


class Cursor:
    """Bytes read from front to back; CorruptError at the end."""

    def __init__(self, data: bytes, place: int = 0):
        self._data = data
        self._place = place

    @property
    def left(self) -> int:
        """How many bytes come still."""
        return len(self._data) - self._place

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if size > self.left:
            raise CorruptError("a structure ends too early.")
        self._place += size
        return self._data[self._place - size : self._place]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)

    def skip(self, size: int) -> None:
        """Pass over bytes."""
        self.take(size)

    def uint(self, size: int) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.take(size), "little")


def text_of(name: bytes) -> str:
    """A name, with what is not UTF-8 in Python's surrogate form."""
    return name.decode("utf-8", "surrogateescape")


def link(part: Cursor) -> tuple[str, int | None]:
    """Name and address of a link message; None for a soft or external one."""
    version, form = part.uint(1), part.uint(1)
    if version != 1:
        raise CorruptError(f"a link has version {version}.")
    kind = part.uint(1) if form & 8 else 0
    part.skip((8 if form & 4 else 0) + (1 if form & 16 else 0))
    name = text_of(part.take(part.uint(1 << (form & 3))))
    return name, part.uint(8) if kind == 0 else None


def shape_of(message: tuple[int, bytes]) -> tuple[int, ...] | None:
    """A shape, () for a scalar, None for HDF5's null space."""
    flags, body = message
    if flags & 2:
        raise MismatchError("a shape is shared between objects, which Keras never does.")
    part = Cursor(body)
    version, rank = part.uint(1), part.uint(1)
    if version not in (1, 2):
        raise CorruptError(f"a shape has version {version}.")
    part.skip(1)
    if version == 2 and part.uint(1) == 2:
        return None
    part.skip(5 if version == 1 else 0)
    return tuple(part.uint(8) for _ in range(rank))


def _integer(size: int, signed: bool, big: bool) -> bytes:
    return struct.pack("<BBHIHH", 0x10, big | signed << 3, 0, size, 0, 8 * size)


def _float(size: int, exponent: int, big: bool) -> bytes:
    bits, fraction = 8 * size, 8 * size - 1 - exponent
    return struct.pack(
        "<BBBBIHHBBBBI", 0x11, 0x20 | big, bits - 1, 0, size, 0, bits, fraction, exponent, 0, fraction,
        (1 << exponent - 1) - 1,
    )  # fmt: skip


def _complex(part: bytes, size: int) -> bytes:
    members = b"".join(
        struct.pack("<8sI28x", name, offset) + part for name, offset in ((b"r", 0), (b"i", size // 2))
    )  # fmt: skip
    return struct.pack("<BHBI", 0x16, 2, 0, size) + members


def _encodings() -> dict[bytes, np.dtype[Any]]:
    """How HDF5 describes each type of number that Keras writes -> the dtype."""
    found = {}
    for big, order in enumerate("<>"):
        for size in (1, 2, 4, 8):
            for signed, kind in enumerate("ui"):
                found[_integer(size, bool(signed), bool(big))] = np.dtype(f"{order}{kind}{size}")
        for size, exponent in ((2, 5), (4, 8), (8, 11)):
            code = _float(size, exponent, bool(big))
            found[code] = np.dtype(f"{order}f{size}")
            if size > 2:
                found[_complex(code, 2 * size)] = np.dtype(f"{order}c{2 * size}")
    names = b"FALSE\0\0\0TRUE\0\0\0\0\0\1"
    found[struct.pack("<BHBI", 0x18, 2, 0, 1) + _integer(1, True, False) + names] = np.dtype("?")
    found[struct.pack("<BHBI", 0x15, 0, 0, 2)] = np.dtype("V2")  # bfloat16
    return found


_ENCODINGS = _encodings()


def number_of(body: bytes) -> np.dtype[Any] | None:
    """The dtype that a type message means; None for anything but the plain numbers of Keras's files."""
    for code, dtype in _ENCODINGS.items():
        if body.startswith(code) and not body[len(code) :].strip(b"\0"):
            return dtype
    return None
