"""How soon a model that changed is compiled again: at once, unless it changes again and again."""

from __future__ import annotations

_SOON, _LONGEST = 32, 1024  # steps


class Backoff:
    """Steps that have to pass without a change before the next program: none at first, twice as many after each change
    that came soon. A program costs some hundred eager steps."""

    def __init__(self) -> None:
        self._needed, self._quiet = 0, _SOON

    def changed(self) -> None:
        """Note a change."""
        self._needed = min(_LONGEST, 2 * self._needed or 1) if self._quiet < _SOON else self._needed // 2
        self._quiet = 0

    def passed(self) -> bool:
        """Count a step; whether it may be compiled."""
        self._quiet += 1
        return self._quiet > self._needed

    @property
    def is_lost(self) -> bool:
        """Whether changes come so often that one should hear of it."""
        return self._needed >= _SOON
