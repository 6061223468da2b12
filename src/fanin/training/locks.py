"""One lock for each module: while a thread traces a module, which puts other tensors into it, others leave it alone."""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_locks: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_making = threading.Lock()


def lock_of(module: nn.Module) -> Any:
    """The lock of a module, which one thread may take several times."""
    with _making:
        return _locks.setdefault(module, threading.RLock())
