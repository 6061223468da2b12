"""The programs of one module by kind of call, bounded in number and in the time that is spent on making them.

A program costs a hundred eager steps and more. Most training has two to eight kinds of batches; where the shape changes
all the time, compiling each would be slower than any eager loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")
_AT_ONCE = 8  # kinds that get a program when they come first; later ones when they come again
_MOST_PROGRAMS = 32  # kept: those used last
_MOST_DROPPED = 32  # after so many that had to go, no more are made


class ProgramCache(OrderedDict[Hashable, T | None]):
    """Kind -> program, or None where there can be none.

    Args:
        is_patient: whether a kind may wait for its program, as there is an eager way.
    """

    def __init__(self, is_patient: bool = True):
        super().__init__()
        self._is_patient = is_patient
        self._seen: set[Hashable] = set()
        self._dropped = 0

    def find(self, kind: Hashable, make: Callable[[], T | None]) -> T | None:
        """The program of this kind, made now if it is worth it; else None."""
        if kind in self:
            self.move_to_end(kind)
        elif self._waits(kind):
            return None
        else:
            self[kind] = make()
            if len(self) > _MOST_PROGRAMS:
                self.popitem(last=False)
                self._dropped += 1
        return self[kind]

    def _waits(self, kind: Hashable) -> bool:
        if not self._is_patient or len(self) < _AT_ONCE:
            return False
        if self._dropped >= _MOST_DROPPED:
            return True
        is_new = kind not in self._seen
        if is_new and len(self._seen) < _MOST_PROGRAMS * _MOST_PROGRAMS:
            self._seen.add(kind)
        return is_new

    def clear(self) -> None:
        """Forget all kinds."""
        super().clear()
        self._seen.clear()
        self._dropped = 0
