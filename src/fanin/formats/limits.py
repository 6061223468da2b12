"""Reading files that nobody vouches for: the members of a zip and the JSON inside, within fixed limits.

Every error is a `FormatError`. Nothing is extracted, and nothing is as large as a header says before the size is known
to be stored. What two readers could understand in two ways is refused: members twice, bytes that belong to no member,
keys twice.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, BinaryIO

from fanin.errors import CorruptError, FormatError, MismatchError, TooLargeError, UnsafeError

JSON_BYTES = 16 * 2**20
JSON_DEPTH = 64
JSON_TOKENS = 1_000_000  # strings, brackets and commas
JSON_INT = 2**63
MEMBERS = 1_000
DIRECTORY_BYTES = 2**20
DEFLATED_FREE = 16 * 2**20  # a deflated member up to this size may have any ratio
DEFLATED_RATIO = 100

_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},]', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")


@contextmanager
def naming(path: str | os.PathLike[str], member: str, kind: type[FormatError] = MismatchError) -> Iterator[None]:
    """Inside the block, every error becomes a `FormatError` that names the file and the member.

    A FormatError keeps its class, anything else becomes one of `kind`, with the error as its cause. Errors for want of
    memory pass.
    """
    try:
        yield
    except FormatError as error:
        raise type(error)(f"{os.fspath(path)}, {member}: {error}") from error.__cause__
    except MemoryError:
        raise
    except Exception as error:
        shown = str(error) if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: {error}"
        raise kind(f"{os.fspath(path)}, {member}: {shown}") from error


# --- JSON -------------------------------------------------------------------------------------------------------------


def parse_json(data: bytes) -> Any:
    """JSON data from UTF-8 bytes.

    Raises TooLargeError beyond 16 MB, 64 levels, a million tokens or integers of 64 bits; CorruptError for anything but
    strict JSON: NaN, Infinity, 1e999, keys twice, a byte order mark, lone surrogates, trailing bytes.
    """
    if len(data) > JSON_BYTES:
        raise TooLargeError(f"{len(data)} bytes of JSON, at most {JSON_BYTES} are read.")
    _check_nesting(data)
    try:
        parsed = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
        if _SURROGATE.search(data):
            json.dumps(parsed, ensure_ascii=False).encode()  # a lone one fails
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"not strict JSON: {error}") from error
    return parsed


def _check_nesting(data: bytes) -> None:
    depth = 0
    for count, found in enumerate(_TOKENS.finditer(data)):
        if count >= JSON_TOKENS:
            raise TooLargeError(f"more than {JSON_TOKENS} strings, brackets and commas.")
        first = data[found.start()]
        if first in _OPENING:
            depth += 1
            if depth > JSON_DEPTH:
                raise TooLargeError(f"JSON nested deeper than {JSON_DEPTH} levels.")
        elif first in _CLOSING:
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if any(key == other for other, _ in pairs[:i]))
        raise CorruptError(f"the key {twice!r} comes twice in one object.")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -JSON_INT <= int(digits) < JSON_INT:
        raise TooLargeError(f"the integer {digits[:24]}... does not fit in 64 bits.")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise CorruptError(f"the number {digits[:24]} is not finite.")
    return value


def _constant(name: str) -> float:
    raise CorruptError(f"{name} is not JSON.")


# --- files ------------------------------------------------------------------------------------------------------------


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """A file to read from. OSError for a path that is missing or a directory, CorruptError for a pipe or a device."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
    try:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(f"{os.fspath(path)} is a directory, not a file.")
        if not stat.S_ISREG(kind):
            raise CorruptError(f"{os.fspath(path)}: not a regular file.")
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file."""
    with open_regular(path) as file:
        return file.read()


# --- zip --------------------------------------------------------------------------------------------------------------


def read_members(path: str | os.PathLike[str], limits: Mapping[str, int | None]) -> dict[str, bytes]:
    """The named members of a zip file, all of them present, their checksums right.

    Args:
        path: the file.
        limits: name -> the most bytes it may have; None for what the file can justify. Members under "assets/" are
            left alone, others refused.

    Raises OSError for a path that cannot be read; UnsafeError for names and entries that reach elsewhere; CorruptError,
    TooLargeError, MismatchError.
    """
    with open_regular(path) as file:
        with naming(path, "the zip directory", CorruptError):
            members = _directory(file)
            _check_names(members, limits)
        found = {}
        for info in sorted(members, key=lambda m: m.header_offset):
            if info.filename in limits:
                with naming(path, info.filename, CorruptError):
                    found[info.filename] = _read(file, info, limits[info.filename])
        return found


def _directory(file: BinaryIO) -> list[zipfile.ZipInfo]:
    """The entries of the central directory, once it is known to be of a sane size and to fill the file exactly."""
    size = file.seek(0, os.SEEK_END)
    tail = _at(file, max(size - 22, 0), 22)
    if len(tail) < 22 or tail[:4] != b"PK\5\6" or tail[20:] != b"\0\0":
        raise CorruptError("not a zip archive that ends with its directory: it is truncated, or has bytes behind it.")
    count, length, offset = struct.unpack("<HLL", tail[10:20])
    end = size - 22
    if count == 0xFFFF or length == 0xFFFFFFFF or offset == 0xFFFFFFFF:
        locator, record = _at(file, end - 20, 20), _at(file, end - 76, 56)
        if locator[:4] != b"PK\6\7" or record[:4] != b"PK\6\6" or struct.unpack("<Q", locator[8:16])[0] != end - 76:
            raise CorruptError("the zip64 record is not where it belongs.")
        count, length, offset = struct.unpack("<QQQ", record[32:56])
        end -= 76
    if count > MEMBERS or length > DIRECTORY_BYTES:
        raise TooLargeError(f"{count} members in a directory of {length} bytes.")
    if offset + length != end:
        raise CorruptError("the directory is not where it belongs, or bytes stand before the archive.")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if len(members) != count:
        raise CorruptError(f"the directory announces {count} members and holds {len(members)}.")
    place = slack = 0
    for info in sorted(members, key=lambda m: m.header_offset):
        if not place <= info.header_offset <= place + slack:
            raise CorruptError(f"member {info.filename!r} overlaps another, or bytes before it belong to none.")
        place = _data_start(file, info) + info.compress_size
        slack = 24 if info.flag_bits & 8 else 0  # a data descriptor may follow
    if not place <= offset <= place + slack:
        raise CorruptError("bytes before the directory belong to no member.")
    return members


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    if offset < 0:
        return b""
    file.seek(offset)
    return file.read(size)


def _data_start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the member's bytes begin, once its own header agrees with the directory."""
    name = info.filename
    header = _at(file, info.header_offset, 30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise CorruptError(f"member {name!r} has no header.")
    flags, method, crc, packed, size, name_size, extra_size = struct.unpack("<HH4xLLLHH", header[6:30])
    if info.flag_bits & 0x2061 or flags & 0x2061:
        raise CorruptError(f"member {name!r} is encrypted or patched.")
    if method != info.compress_type or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CorruptError(f"member {name!r} is neither stored nor deflated, or its two headers disagree.")
    written = _at(file, info.header_offset + 30, name_size)
    if written != info.orig_filename.encode("utf-8" if flags & 0x800 else "cp437"):
        raise CorruptError(f"member {name!r} has another name, {written!r}, in its own header.")
    late = bool(flags & 8)  # sizes and checksum stand behind the data
    agreed = all(
        own == central or (own == 0xFFFFFFFF and own != crc) or (late and own == 0)
        for own, central in ((packed, info.compress_size), (size, info.file_size), (crc, info.CRC))
    )
    if not agreed or (method == zipfile.ZIP_STORED and info.compress_size != info.file_size):
        raise CorruptError(f"member {name!r}: its own header and the directory disagree about its size or checksum.")
    return int(info.header_offset) + 30 + int(name_size) + int(extra_size)


def _check_names(members: list[zipfile.ZipInfo], limits: Mapping[str, int | None]) -> None:
    seen: set[str] = set()
    for info in members:
        name, kind = info.orig_filename, info.external_attr >> 16
        parts = name.removesuffix("/").split("/")
        if stat.S_ISLNK(kind):
            raise UnsafeError(f"member {name!r} is a link.")
        if any(part in ("", ".", "..") for part in parts) or "\\" in name or ":" in name or not name.isprintable():
            raise UnsafeError(f"member {name!r} has a name that could point elsewhere.")
        if name in seen:
            raise CorruptError(f"member {name!r} comes twice.")
        seen.add(name)
        if name not in limits and parts[0] != "assets":
            raise MismatchError(f"member {name!r} is none of {', '.join(limits)}.")
    missing = [name for name in limits if name not in seen]
    if missing:
        raise CorruptError(f"there is no member {', '.join(missing)}.")


def _read(file: BinaryIO, info: zipfile.ZipInfo, limit: int | None) -> bytes:
    """The bytes of one member, no more than its header says, with length and checksum compared."""
    size, packed = info.file_size, info.compress_size
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    if limit is not None and size > limit:
        raise TooLargeError(f"{size} bytes, at most {limit} are read.")
    if deflated and size > DEFLATED_FREE and size > DEFLATED_RATIO * packed:
        raise TooLargeError(f"{packed} bytes claim to unpack to {size}.")
    data = _at(file, _data_start(file, info), packed)
    if deflated:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        data = unpacker.decompress(data, size + 1)
        if not unpacker.eof or unpacker.unused_data:
            raise CorruptError("the deflated data does not end where it should.")
    if len(data) != size:
        raise CorruptError(f"{len(data)} bytes found, {size} announced.")
    if zlib.crc32(data) != info.CRC:
        raise CorruptError("the checksum is wrong: the bytes have changed since they were written.")
    return data
