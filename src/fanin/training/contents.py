"""What lists, dicts and sets hold, one level deep and by identity, so that a change of it is found and undone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

KINDS = (list, dict, set)
Place = tuple[dict[str, Any], str, Any]  # an object's attributes, the name of one, and its value


class Contents:
    """Some containers as they were.

    Args:
        places: where they are found.
    """

    def __init__(self, places: list[Place]):
        self._places = places
        self._containers = [value for *_, value in places]
        self._inside = [[*_inside(value)] for value in self._containers]
        self._identities = [id(one) for inside in self._inside for one in inside]

    def stands(self) -> bool:
        """Whether each holds the objects that it held, in their order."""
        if not self._containers:
            return True
        return [*map(id, chain.from_iterable(map(_inside, self._containers)))] == self._identities

    def moved(self) -> Iterator[Place]:
        """Those that hold something else."""
        for place, inside in zip(self._places, self._inside, strict=True):
            if [*map(id, _inside(place[2]))] != [*map(id, inside)]:
                yield place

    def restore(self) -> None:
        """Put back what they held."""
        for place, inside in zip(self._places, self._inside, strict=True):
            container = place[2]
            if [*map(id, _inside(container))] == [*map(id, inside)]:
                continue
            container.clear()
            if type(container) is list:
                container.extend(inside)
            elif type(container) is set:
                container.update(inside)
            else:
                half = len(inside) // 2
                container.update(zip(inside[:half], inside[half:], strict=True))


def _inside(container: Any) -> Iterable[Any]:
    """Its objects; of a dict the keys, then the values."""
    return chain(container, container.values()) if type(container) is dict else container
