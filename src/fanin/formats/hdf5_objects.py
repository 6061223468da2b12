"""HDF5, as far as Keras's files use it, read from bytes in bounded steps: groups, arrays, attributes of text.

::

    superblock -> root object; an object is a header of messages:
      symbol table -> B-tree -> symbol nodes -> names of a local heap    a group as h5py writes it
      links, or a heap of links                                          a group with names outside ASCII
      shape, type, place                                                 an array
      attributes; long strings lie in global heaps

HDF5's own C library is not asked: damaged lengths and addresses can make it loop or touch memory that is not its own.
Here every structure must lie in the file, and all together may not be much longer than the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from fanin.errors import CorruptError, MismatchError
from fanin.formats.hdf5_dense import dense_links
from fanin.formats.hdf5_parts import NOWHERE, Cursor, Window, link, number_of, shape_of, text_of

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_BASE_ADDRESS = {0: 24, 1: 28, 2: 12, 3: 12}  # by the version of the superblock
_END_ADDRESS = {0: 40, 1: 44, 2: 28, 3: 28}
_ROOT_ADDRESS = {0: 64, 1: 68, 2: 36, 3: 36}
_SIZES = {0: 13, 1: 13, 2: 9, 3: 9}  # of addresses and of lengths, one byte each

# Messages of an object header.
_SPACE, _LINK_INFO, _TYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08, 0x0B
_ATTRIBUTE, _MORE, _SYMBOLS, _ATTRIBUTE_INFO = 0x0C, 0x10, 0x11, 0x15


@dataclass(frozen=True)
class Array:
    """Where the numbers of an array are.

    Attributes:
        shape: its shape; None for one without (HDF5's null space).
        dtype: of the numbers; None if they are not plain numbers.
        storage: "plain", "chunked" or "elsewhere" (in another file, or put together from others).
        start: the first byte in the file.
        size: how many bytes are stored.
    """

    shape: tuple[int, ...] | None
    dtype: np.dtype[Any] | None
    storage: str
    start: int = 0
    size: int = 0


class Objects:
    """The objects of an HDF5 file, by their addresses; `root` is that of the root group.

    Args:
        data: the whole file.

    Raises CorruptError for bytes that do not say what the format says, MismatchError for what Keras never writes.
    """

    def __init__(self, data: bytes):
        check_superblock(data)
        version = data[8]
        if data[_SIZES[version] : _SIZES[version] + 2] != b"\x08\x08":
            raise CorruptError("the HDF5 file does not have addresses of 64 bits.")
        self.data = data
        self._file = Window(data)
        self._headers: dict[int, list[tuple[int, int, bytes]]] = {}
        self._groups: dict[int, dict[str, int | None] | None] = {}
        self._heaps: dict[int, dict[int, bytes]] = {}
        self._attributes: dict[int, dict[str, tuple[bytes, tuple[int, ...] | None, bytes]]] = {}
        self.root = self._file.at(_ROOT_ADDRESS[version], 8).uint(8)

    # --- groups --------------------------------------------------------------------------------------------------

    def group(self, address: int) -> dict[str, int | None] | None:
        """Name -> address of what a group holds, None for soft and external links; None if it is not a group."""
        if address not in self._groups:
            self._groups[address] = self._links(self._header(address))
        return self._groups[address]

    def _links(self, header: list[tuple[int, int, bytes]]) -> dict[str, int | None] | None:
        found: list[tuple[str, int | None]] = []
        is_group = False
        for kind, _, body in header:
            part = Cursor(body)
            if kind == _SYMBOLS:
                is_group = True
                found += self._symbols(part.uint(8), part.uint(8))
            elif kind == _LINK:
                found.append(link(part))
            elif kind == _LINK_INFO:
                is_group = True
                part.skip(1)
                part.skip(8 if part.uint(1) & 1 else 0)
                heap, tree = part.uint(8), part.uint(8)
                if heap != NOWHERE:
                    found += dense_links(self._file, heap, tree)
        if not is_group:
            return None
        links = dict(found)
        if len(links) != len(found):
            raise CorruptError("a group has one name twice.")
        return links

    def _symbols(self, tree: int, heap: int) -> list[tuple[str, int | None]]:
        """What a group in h5py's usual form holds: a B-tree, whose leaves are nodes of symbols."""
        part = self._file.at(heap, 32, b"HEAP")
        part.skip(4)
        size = part.uint(8)
        part.skip(8)
        names = self._file.at(part.uint(8), size).rest()
        found: list[tuple[str, int | None]] = []
        todo = [(tree, -1)]
        while todo:
            address, level = todo.pop()
            if level == 0:
                found += self._symbol_node(address, names)
                continue
            node = self._file.at(address, 24, b"TREE")
            kind, own_level, used = node.uint(1), node.uint(1), node.uint(2)
            if kind != 0 or level not in (-1, own_level + 1):
                raise CorruptError("a group's tree is damaged.")
            keys = self._file.at(address + 24, 16 * used)
            for _ in range(used):
                keys.skip(8)
                todo.append((keys.uint(8), own_level))
        return found

    def _symbol_node(self, address: int, names: bytes) -> list[tuple[str, int | None]]:
        node = self._file.at(address, 8, b"SNOD")
        node.skip(2)
        count = node.uint(2)
        entries = self._file.at(address + 8, 40 * count)
        found = []
        for _ in range(count):
            start, target, cached = entries.uint(8), entries.uint(8), entries.uint(4)
            entries.skip(20)
            end = names.find(b"\0", start)
            if start >= len(names) or end < 0:
                raise CorruptError("a name lies outside its heap.")
            self._file.spend(end - start)
            found.append((text_of(names[start:end]), None if cached == 2 else target))
        return found

    # --- arrays --------------------------------------------------------------------------------------------------

    def array(self, address: int) -> Array | None:
        """The array at an address, its bytes inside the file; None if there is no array."""
        header = self._header(address)
        messages = {kind: (flags, body) for kind, flags, body in header}
        if any(kind not in messages for kind in (_SPACE, _TYPE, _LAYOUT)):
            return None
        if sum(kind in (_SPACE, _TYPE, _LAYOUT) for kind, _, _ in header) > 3:
            raise CorruptError("an array has two shapes, types or places.")
        flags, body = messages[_TYPE]
        dtype = None if flags & 2 else number_of(body)  # 2: shared, that is, a named type
        shape = shape_of(messages[_SPACE])
        part = Cursor(messages[_LAYOUT][1])
        version, kind = part.uint(1), part.uint(1)
        if version not in (3, 4):
            raise MismatchError(f"an array is stored in version {version} of HDF5's layout, which Keras never uses.")
        if kind == 3 or _EXTERNAL in messages:
            return Array(shape, dtype, "elsewhere")
        if kind == 2 or _FILTERS in messages:
            return Array(shape, dtype, "chunked")
        if kind == 0:
            raise MismatchError("an array is stored in HDF5's compact form, which Keras never uses.")
        start, size = part.uint(8), part.uint(8)
        if start == NOWHERE:
            return Array(shape, dtype, "plain")
        if start + size > len(self.data):
            raise CorruptError("an array ends outside the file.")
        return Array(shape, dtype, "plain", start, size)

    # --- attributes ----------------------------------------------------------------------------------------------

    def text(self, address: int, name: str) -> list[str] | None:
        """The strings of an attribute, a single one as a list of one; None if the object has no such attribute."""
        if address not in self._attributes:
            self._attributes[address] = self._read_attributes(address)
        found = self._attributes[address].get(name)
        if found is None:
            return None
        kind, shape, values = found
        if shape is None or 0 in shape:
            return []
        if len(shape) > 1 or not kind:
            raise MismatchError(f"attribute {name!r} is not a list of strings.")
        return self._strings(name, Cursor(kind), shape[0] if shape else 1, Cursor(values))

    def _read_attributes(self, address: int) -> dict[str, tuple[bytes, tuple[int, ...] | None, bytes]]:
        """Name -> type (nothing for a named one), shape and bytes of each attribute."""
        found: dict[str, tuple[bytes, tuple[int, ...] | None, bytes]] = {}
        for message, _, body in self._header(address):
            if message not in (_ATTRIBUTE, _ATTRIBUTE_INFO):
                continue
            part = Cursor(body)
            version, flags = part.uint(1), part.uint(1)
            if message == _ATTRIBUTE_INFO:
                part.skip(2 if flags & 1 else 0)
                if part.uint(8) != NOWHERE:
                    raise MismatchError("attributes are kept in HDF5's dense form, which Keras never uses.")
                continue
            if version not in (1, 2, 3):
                raise CorruptError(f"an attribute has version {version}.")
            sizes = [part.uint(2) for _ in range(3)]
            part.skip(1 if version == 3 else 0)
            padding = 7 if version == 1 else 0
            name, kind, space = (part.take((size + padding) & ~padding)[:size] for size in sizes)
            shared = flags if version > 1 else 0
            key = text_of(name.rstrip(b"\0"))
            if key in found:
                raise CorruptError(f"an object has the attribute {key!r} twice.")
            found[key] = (b"" if shared & 1 else kind, shape_of((shared & 2, space)), part.rest())
        return found

    def _strings(self, name: str, kind: Cursor, count: int, values: Cursor) -> list[str]:
        form, bits, _, _, size = kind.uint(1) & 15, kind.uint(1), *kind.take(2), kind.uint(4)
        if form == 3:
            padding = b"\0" if bits & 15 != 2 else b" "
            found = [values.take(size) for _ in range(count if size else 0)]
            found = [text.split(b"\0")[0] if bits & 15 == 0 else text.rstrip(padding) for text in found]
        elif form == 9 and bits & 15 == 1:
            found = [self._long_string(values) for _ in range(count)]
        else:
            raise MismatchError(f"attribute {name!r} is not made of strings.")
        try:
            return [text.decode() for text in found]
        except UnicodeDecodeError:
            raise CorruptError(f"attribute {name!r} is not UTF-8.") from None

    def _long_string(self, values: Cursor) -> bytes:
        length, address, index = values.uint(4), values.uint(8), values.uint(4)
        if length == 0:
            return b""
        if address not in self._heaps:
            self._heaps[address] = self._heap(address)
        found = self._heaps[address].get(index, b"")[:length]
        self._file.spend(length)
        if len(found) != length:
            raise CorruptError("a string is not in its heap.")
        return found.rstrip(b"\0")

    def _heap(self, address: int) -> dict[int, bytes]:
        """The objects of a global heap."""
        head = self._file.at(address, 16, b"GCOL")
        head.skip(4)
        size = head.uint(8)
        if size < 16:
            raise CorruptError("a heap is damaged.")
        part = self._file.at(address + 16, size - 16)
        found = {}
        while part.left >= 16:
            index = part.uint(2)
            part.skip(6)
            length = part.uint(8)
            if index == 0:  # free space
                break
            found[index] = part.take(length)
            part.skip(min(-length % 8, part.left))
        return found

    # --- object headers ------------------------------------------------------------------------------------------

    def _header(self, address: int) -> list[tuple[int, int, bytes]]:
        """The messages of an object: kind, flags, bytes."""
        if address not in self._headers:
            newer = self.data[address : address + 4] == b"OHDR"
            self._headers[address] = self._header_2(address) if newer else self._header_1(address)
        return self._headers[address]

    def _header_1(self, address: int) -> list[tuple[int, int, bytes]]:
        head = self._file.at(address, 12)
        version, _, count, _ = head.uint(1), head.uint(1), head.uint(2), head.uint(4)
        if version != 1:
            raise CorruptError("there is no object where one should be.")
        blocks = [(address + 16, head.uint(4))]
        found: list[tuple[int, int, bytes]] = []
        for start, size in blocks:
            part = self._file.at(start, size)
            while part.left >= 8 and len(found) < count:
                kind, length, flags = part.uint(2), part.uint(2), part.uint(1)
                part.skip(3)
                body = part.take(length)
                found.append((kind, flags, body))
                if kind == _MORE:
                    blocks.append(struct.unpack("<QQ", Cursor(body).take(16)))
        return found

    def _header_2(self, address: int) -> list[tuple[int, int, bytes]]:
        head = self._file.at(address, 6, b"OHDR")
        version, form = head.uint(1), head.uint(1)
        if version != 2:
            raise CorruptError(f"an object has version {version}.")
        start = address + 6 + (16 if form & 32 else 0) + (4 if form & 16 else 0)
        width = 1 << (form & 3)
        blocks = [(start + width, self._file.at(start, width).uint(width))]
        found: list[tuple[int, int, bytes]] = []
        ordered = 2 if form & 4 else 0
        for place, size in blocks:
            part = self._file.at(place, size)
            while part.left >= 4 + ordered:
                kind, length, flags = part.uint(1), part.uint(2), part.uint(1)
                part.skip(ordered)
                body = part.take(length)
                found.append((kind, flags, body))
                if kind == _MORE:
                    where, length = struct.unpack("<QQ", Cursor(body).take(16))
                    self._file.at(where, 4, b"OCHK")
                    blocks.append((where + 4, max(length - 8, 0)))  # without signature and checksum
        return found


def check_superblock(data: bytes) -> None:
    """CorruptError unless the file begins at byte 0 and ends where it says: not truncated, nothing around it."""
    version = data[8] if len(data) > 96 and data[:8] == _SIGNATURE else -1
    if version not in _BASE_ADDRESS:
        raise CorruptError("not an HDF5 file.")
    base, end = (int.from_bytes(data[a : a + 8], "little") for a in (_BASE_ADDRESS[version], _END_ADDRESS[version]))
    if base != 0 or end != len(data):
        raise CorruptError(f"the HDF5 file says that it ends at byte {end} and has {len(data)}: it is truncated.")


def is_hdf5(head: bytes) -> bool:
    """Whether a file that begins with these bytes is HDF5."""
    return head[:8] == _SIGNATURE
