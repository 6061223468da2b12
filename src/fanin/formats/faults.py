"""What does not fit, collected, so that one error or one warning names it all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fanin.errors import MismatchError

_SHOWN = 20


class Faults:
    """A list of mismatches; `check` raises it as one error."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __str__(self) -> str:
        more = len(self.found) - _SHOWN
        return "; ".join(self.found[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside the block, a MismatchError ends the block and is noted."""
        try:
            yield
        except MismatchError as error:
            self.found.append(str(error).removesuffix("."))

    def check(self) -> None:
        """MismatchError with all that was noted, if anything was."""
        if self.found:
            raise MismatchError(f"{self}.")
