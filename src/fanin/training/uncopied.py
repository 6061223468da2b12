"""What belongs to one model and no copy of it."""

from __future__ import annotations

from typing import Any


class Uncopied:
    """Base of what copies and pickles leave out, None in its place: a copy of a model compiles its own programs."""

    def __reduce__(self) -> Any:
        return _nothing, ()


def _nothing() -> None:
    return None
