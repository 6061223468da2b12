"""Links of an HDF5 group in its dense form: a B-tree of records, each of which points into a heap of links.

h5py writes it where more than eight names stand in a group and one of them is outside ASCII.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from fanin.errors import CorruptError, MismatchError
from fanin.formats.hdf5_parts import Cursor, Window, link

_BY_NAME = 5  # the kind of tree
_HASH = 4  # each record: a hash of the name, then where the link is in the heap


def dense_links(file: Window, heap: int, tree: int) -> list[tuple[str, int | None]]:
    """Name and address of each link; None for soft and external ones."""
    found = _Heap(file, heap)
    return [link(found.get(record[_HASH:])) for record in _records(file, tree)]


def _records(file: Window, address: int) -> list[bytes]:
    """The records of a tree, in any order."""
    head = file.at(address, 38, b"BTHD")
    version, kind, node_size, size, depth = (head.uint(width) for width in (1, 1, 4, 2, 2))
    head.skip(2)
    root, count, total = head.uint(8), head.uint(2), head.uint(8)
    if version != 0 or kind != _BY_NAME or size <= _HASH or node_size < 10 + size or depth > 8:
        raise CorruptError("the tree of a group is damaged.")
    width, totals = _widths(node_size, size, depth)
    found: list[bytes] = []
    todo = [(root, count, depth)] if total else []
    for place, used, level in todo:
        node = file.at(place, node_size, b"BTIN" if level else b"BTLF")
        node.skip(2)
        found += [node.take(size) for _ in range(used)]
        for _ in range(used + 1 if level else 0):
            child, amount = node.uint(8), node.uint(width)
            node.skip(totals[level])
            todo.append((child, amount, level - 1))
    if len(found) != total:
        raise CorruptError("the tree of a group does not hold what it announces.")
    return found


def _widths(node_size: int, size: int, depth: int) -> tuple[int, list[int]]:
    """How many bytes a pointer has for the number of records in the child, and, by level, below it."""
    most = (node_size - 10) // size
    width = _bytes_for(most)
    totals, below = [0, 0], most
    for level in range(1, depth + 1):
        pointer = 8 + width + totals[level]
        here = (node_size - 10 - pointer) // (size + pointer)
        below = (here + 1) * below + here
        totals.append(_bytes_for(below))
    return width, totals


def _bytes_for(number: int) -> int:
    return max(1, (number.bit_length() + 7) // 8)


class _Heap:
    """Objects in blocks whose sizes double from row to row."""

    def __init__(self, file: Window, address: int):
        head = file.at(address, 142, b"FRHP")
        version, _, filters, _ = (head.uint(width) for width in (1, 2, 2, 1))
        head.skip(4 + 12 * 8)
        width, start, largest, bits, _ = (head.uint(size) for size in (2, 8, 8, 2, 2))
        root, rows = head.uint(8), head.uint(2)
        if version != 0 or filters or not 0 < start <= largest or not 0 < bits <= 64 or not 0 < width <= 1024:
            raise CorruptError("the heap of a group is damaged.")
        self._file = file
        self._offset_size = (bits + 7) // 8
        self._blocks = [(root, start)] if rows == 0 else self._table(root, rows, width, start, largest)
        self._ends = list(accumulate(size for _, size in self._blocks))

    def _table(self, address: int, rows: int, width: int, start: int, largest: int) -> list[tuple[int, int]]:
        """The blocks of the heap in order: address and size."""
        sizes = [start * 2 ** max(row - 1, 0) for row in range(min(rows, 64))]
        if sizes[-1] > largest or rows > 64:
            raise MismatchError("a group holds more names than fanin reads in this form.")
        head = 4 + 1 + 8 + self._offset_size
        table = self._file.at(address, head + 8 * width * rows, b"FHIB")
        table.skip(head - 4)
        return [(table.uint(8), size) for size in sizes for _ in range(width)]

    def get(self, place: bytes) -> Cursor:
        """The object at a place in the heap."""
        part = Cursor(place)
        kind = part.uint(1)
        offset = part.uint(self._offset_size)
        length = part.uint(part.left)
        if kind >> 4:
            raise CorruptError("a link is not where links are kept.")
        number = bisect_right(self._ends, offset)
        if number == len(self._blocks) or offset + length > self._ends[number]:
            raise CorruptError("a link is not in its heap.")
        block, size = self._blocks[number]
        return self._file.at(block + offset - (self._ends[number] - size), length)
