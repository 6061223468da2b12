"""Locks of modules: while one thread traces a module, with fake tensors as its weights, other threads must not use it.

Modules that share a part exclude each other, as an autoencoder and the model that is its first half.
"""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_locks: WeakKeyDictionary[nn.Module, tuple[int, Any]] = WeakKeyDictionary()  # part -> (age of the lock, the lock)
_ages = count()
_making = threading.Lock()


class _Locks:
    """Several locks as one, always taken in the same order."""

    def __init__(self, locks: list[Any]):
        self._locks = locks

    def __enter__(self) -> None:
        for lock in self._locks:
            lock.acquire()

    def __exit__(self, *raised: object) -> None:
        for lock in reversed(self._locks):
            lock.release()


def lock_of(module: nn.Module) -> AbstractContextManager[Any]:
    """The lock of a module and its parts, which one thread may take several times."""
    with _making:
        parts = list(module.modules())
        known = {_locks[part] for part in parts if part in _locks} or {(next(_ages), threading.RLock())}
        locks = sorted(known, key=lambda one: one[0])
        for part in parts:
            _locks.setdefault(part, locks[0])
        return locks[0][1] if len(locks) == 1 else _Locks([lock for _, lock in locks])


# --- forks: a child has no thread that would release what another held -----------------------------------------------

_LONGEST = 10.0  # seconds for one lock: whoever holds it may wait for the thread that forks


class _Held(threading.local):
    """The locks that this thread took for a fork."""

    def __init__(self) -> None:
        self.locks: list[Any] = []


_held = _Held()


def _before_fork() -> None:
    """Wait for other threads, so that the child finds free locks, and no module in the middle of being traced."""
    with _making:
        known = [lock for _, lock in sorted({*_locks.values()}, key=lambda one: one[0])]
    _held.locks = [lock for lock in (*known, _making) if lock.acquire(timeout=_LONGEST)]


def _after_fork() -> None:
    held, _held.locks = _held.locks[::-1], []
    for lock in held:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
