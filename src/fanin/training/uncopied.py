"""A base class of what belongs to one model and is not copied with it."""

from __future__ import annotations

from typing import Any


class Uncopied:
    """Copies and pickles have None in place of such an object: a copy of a model compiles its own programs."""

    def __reduce__(self) -> Any:
        return _nothing, ()


def _nothing() -> None:
    return None
