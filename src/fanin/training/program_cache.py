"""The programs of one module by kind of call, bounded in number and in the time that is spent on making them.

A program costs a hundred eager steps and more. Most training has two to eight kinds of batches; where the shape changes
all the time, compiling each would be slower than any eager loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")
_MADE_AT_ONCE = 8  # so many kinds get a program at their first call; later ones at their second
_MOST_PROGRAMS = 32  # kept: the most recently used
_MOST_EVICTED = 32  # after so many evictions, no more programs are made


class ProgramCache(OrderedDict[Hashable, T | None]):
    """An LRU cache: kind of call -> program, or None for a kind that cannot be compiled.

    Args:
        is_patient: whether `find` may return None for a new kind, which then runs eagerly.
    """

    def __init__(self, may_defer: bool = True):
        super().__init__()
        self._may_defer = may_defer
        self._deferred: set[Hashable] = set()
        self._evicted = 0

    def find(self, kind: Hashable, make: Callable[[], T | None]) -> T | None:
        """The program of this kind, made now if it is worth it; None where the call has to run eagerly."""
        if kind in self:
            self.move_to_end(kind)
        elif self._is_deferred(kind):
            return None
        else:
            self[kind] = make()
            if len(self) > _MOST_PROGRAMS:
                self.popitem(last=False)
                self._evicted += 1
        return self[kind]

    def _is_deferred(self, kind: Hashable) -> bool:
        if not self._may_defer or len(self) < _MADE_AT_ONCE:
            return False
        if self._evicted >= _MOST_EVICTED:
            return True
        is_new = kind not in self._deferred
        if is_new and len(self._deferred) < _MOST_PROGRAMS * _MOST_PROGRAMS:
            self._deferred.add(kind)
        return is_new

    def clear(self) -> None:
        """Forget all kinds."""
        super().clear()
        self._deferred.clear()
        self._evicted = 0
