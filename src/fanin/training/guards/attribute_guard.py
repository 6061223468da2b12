"""Attributes of objects as tuples, which are read and compared in C: faster than one by one."""

from __future__ import annotations

from collections.abc import Mapping
from operator import call, itemgetter
from typing import Any

# An object's id: its attributes, and the names and values to compare.
ByOwner = dict[int, tuple[Mapping[str, Any], dict[str, Any]]]


class AttributeGuard:
    """Some attributes of each owner as one tuple, which is read and compared in C."""

    def __init__(self, by_owner: ByOwner):
        owned = [*by_owner.values()]
        # A getter of one name gives no tuple.
        names = [[*values, *values] if len(values) == 1 else [*values] for _, values in owned]
        self._getters = [itemgetter(*some) for some in names]
        self._owners = [own for own, _ in owned]
        self._values = [tuple(values[name] for name in some) for some, (_, values) in zip(names, owned, strict=True)]

    def holds(self) -> bool:
        """Whether all are as they were."""
        try:
            return [*map(call, self._getters, self._owners)] == self._values
        except Exception:  # one is gone, or cannot be compared: whatever an `__eq__` of the user's raises
            return False
