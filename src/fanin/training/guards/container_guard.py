"""A guard of the items of lists, dicts and sets, which also restores them.

Items are compared by identity, numbers and strings by value. Of large containers, such as vocabularies, only the size
is compared: comparing all items before each step would take longer than the step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

CONTAINERS = (list, dict, set, deque)
MOST_ITEMS = 256
_PLAIN = (int, float, str, bytes)
Binding = tuple[dict[str, Any], str, Any]  # an object's __dict__, the name of an attribute, and its value


class ContainerGuard:
    """Guards the items of some containers.

    Args:
        bindings: the attributes that they are the values of.
    """

    def __init__(self, bindings: list[Binding]):
        self._small = [binding for binding in bindings if len(binding[2]) <= MOST_ITEMS]
        self._large = [(binding, len(binding[2])) for binding in bindings if len(binding[2]) > MOST_ITEMS]
        self._containers = [binding[2] for binding in self._small]
        self._remember()

    def _remember(self) -> None:
        self._items = [[*_items(one)] for one in self._containers]
        self._identities = [id(one) for items in self._items for one in items]

    def holds(self) -> bool:
        """Whether each container has the same items, in the same order."""
        if self._large and any(len(binding[2]) != size for binding, size in self._large):
            return False
        if not self._containers or [*map(id, chain.from_iterable(map(_items, self._containers)))] == self._identities:
            return True
        if any(True for _ in self.differences()):
            return False
        self._remember()  # equal numbers or strings, but new objects: compare by identity next time
        return True

    def differences(self) -> Iterator[Binding]:
        """The bindings of containers with other items."""
        for binding, items in zip(self._small, self._items, strict=True):
            if not _are_same([*_items(binding[2])], items):
                yield binding
        yield from (binding for binding, size in self._large if len(binding[2]) != size)

    def restore(self) -> None:
        """Restore the items; of large containers, remove what was appended."""
        for binding, items in zip(self._small, self._items, strict=True):
            if not _are_same([*_items(binding[2])], items):
                _refill(binding[2], items)
        for binding, size in self._large:
            container = binding[2]
            if isinstance(container, list):
                del container[size:]
            while isinstance(container, dict) and len(container) > size:
                dict.popitem(container)


def _are_same(now: list[Any], before: list[Any]) -> bool:
    """Whether these are the same objects, or equal numbers and strings."""
    return len(now) == len(before) and all(
        one is other or (type(one) is type(other) and type(one) in _PLAIN and one == other)
        for one, other in zip(now, before, strict=True)
    )


def _refill(container: Any, items: list[Any]) -> None:
    """Replace the items of a container by what `_items` returned before."""
    container.clear()
    if isinstance(container, dict):
        half = len(items) // 2
        dict.update(container, zip(items[:half], items[half:], strict=True))
    elif isinstance(container, set):
        container.update(items)
    else:
        container.extend(items)


def _items(container: Any) -> Iterable[Any]:
    """The items of a container; of a dict the keys, then the values."""
    return chain(dict.keys(container), dict.values(container)) if isinstance(container, dict) else container
