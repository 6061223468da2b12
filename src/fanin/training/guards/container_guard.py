"""What lists, dicts and sets hold, so that a change of it is found and undone.

Objects are told by identity, numbers and words by value. Of large ones, such as vocabularies, only the size is
compared: looking at them before each step would take longer than the step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

KINDS = (list, dict, set, deque)
LARGE = 256
_PLAIN = (int, float, str, bytes)
Place = tuple[dict[str, Any], str, Any]  # an object's attributes, the name of one, and its value


class ContainerGuard:
    """Some containers as they were.

    Args:
        places: where they are found.
    """

    def __init__(self, places: list[Place]):
        self._small = [place for place in places if len(place[2]) <= LARGE]
        self._large = [(place, len(place[2])) for place in places if len(place[2]) > LARGE]
        self._containers = [place[2] for place in self._small]
        self._note()

    def _note(self) -> None:
        self._inside = [[*_inside(one)] for one in self._containers]
        self._identities = [id(one) for inside in self._inside for one in inside]

    def holds(self) -> bool:
        """Whether each holds what it held, in its order."""
        if self._large and any(len(place[2]) != size for place, size in self._large):
            return False
        if not self._containers or [*map(id, chain.from_iterable(map(_inside, self._containers)))] == self._identities:
            return True
        if any(True for _ in self.moved()):
            return False
        self._note()  # equal numbers or words, but other objects: the next look is short again
        return True

    def moved(self) -> Iterator[Place]:
        """Those that hold something else."""
        for place, inside in zip(self._small, self._inside, strict=True):
            if not _are_same([*_inside(place[2])], inside):
                yield place
        yield from (place for place, size in self._large if len(place[2]) != size)

    def restore(self) -> None:
        """Put back what they held; of large ones, take away what came to the end."""
        for place, inside in zip(self._small, self._inside, strict=True):
            if not _are_same([*_inside(place[2])], inside):
                _fill(place[2], inside)
        for place, size in self._large:
            container = place[2]
            if isinstance(container, list):
                del container[size:]
            while isinstance(container, dict) and len(container) > size:
                dict.popitem(container)


def _are_same(now: list[Any], then: list[Any]) -> bool:
    """Whether these are the same objects; equal numbers and words count as the same."""
    return len(now) == len(then) and all(
        one is other or (type(one) is type(other) and type(one) in _PLAIN and one == other)
        for one, other in zip(now, then, strict=True)
    )


def _fill(container: Any, inside: list[Any]) -> None:
    """Put back what `_inside` gave."""
    container.clear()
    if isinstance(container, dict):
        half = len(inside) // 2
        dict.update(container, zip(inside[:half], inside[half:], strict=True))
    elif isinstance(container, set):
        container.update(inside)
    else:
        container.extend(inside)


def _inside(container: Any) -> Iterable[Any]:
    """Its objects; of a dict the keys, then the values."""
    return chain(dict.keys(container), dict.values(container)) if isinstance(container, dict) else container
