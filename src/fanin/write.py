"""The one way in which files are written: whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def target(filepath: str | os.PathLike[str], endings: Sequence[str], overwrite: bool, hint: str = "") -> Path:
    """Where a file of one of these endings goes, links resolved.

    Raises ValueError for another ending (with `hint`) and for an existing file with overwrite=False; OSError for a
    directory, a missing folder or one that cannot be written to.
    """
    shown = os.fspath(filepath)
    if not shown.endswith(tuple(endings)):
        raise ValueError(f"The path {shown!r} must end in {' or '.join(map(repr, endings))}.{hint}")
    path = Path(os.path.realpath(shown))
    if path.is_dir():
        raise IsADirectoryError(f"Cannot save to {shown!r}: it is a directory.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot save to {shown!r}: there is no folder {str(path.parent)!r}.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"Cannot save to {shown!r}: no permission to write to the folder {str(path.parent)!r}.")
    if path.exists() and not overwrite:
        raise ValueError(f"The file {shown!r} exists already, and overwrite=False.")
    return path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` once the block ends without an error.

    It is written beside `path`, flushed to disk and renamed, so that a reader, a full disk or a kill at any moment
    meets the old file or the new one, never a part. On an error the temporary file is removed; one that a killed
    process left is removed by the next save to the same path.
    """
    target = Path(path)
    _sweep(target)
    temporary, handle = _open_temporary(target)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


# --- temporary files --------------------------------------------------------------------------------------------------
#
# A writer holds a lock on its file, which the system takes away when the process ends, however it ends. So a file that
# can be locked has no writer. The name holds the host, for folders shared by machines that do not share locks.


def _temporary_name(target: Path, token: str) -> str:
    return f".{target.name}.{zlib.crc32(platform.node().encode()):08x}{token}.tmp"


def _open_temporary(target: Path) -> tuple[Path, int]:
    """A new file beside the target, locked where the file system has locks."""
    while True:
        path = target.with_name(_temporary_name(target, secrets.token_hex(6)))
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:  # else another save swept it before it was locked
                return path, handle
        except BaseException:
            os.close(handle)
            path.unlink(missing_ok=True)
            raise
        os.close(handle)


def _sweep(target: Path) -> None:
    """Remove the files that killed saves to this target left."""
    pattern = re.compile(re.escape(_temporary_name(target, "")).replace(r"\.tmp", r"[0-9a-f]{12}\.tmp"))
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        stale = [entry.path for entry in entries if pattern.fullmatch(entry.name)]
        for path in stale:
            _remove_unless_locked(path)


def _remove_unless_locked(path: str) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
            os.unlink(path)
        finally:
            os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
