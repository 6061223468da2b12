"""Exponential backoff: how soon a model is compiled again after a change."""

from __future__ import annotations

_SOON, _LONGEST = 32, 1024  # steps


class Backoff:
    """Counts the steps without a change that have to pass before the next program is made.

    None at first; twice as many after each change that comes soon after another, half as many after a late one. A
    program costs some hundred eager steps.
    """

    def __init__(self) -> None:
        self._required, self._unchanged_steps = 0, _SOON

    def note_change(self) -> None:
        """Note that the model has changed."""
        self._required = (
            min(_LONGEST, 2 * self._required or 1) if self._unchanged_steps < _SOON else self._required // 2
        )
        self._unchanged_steps = 0

    def count_step(self) -> bool:
        """Count a step; returns whether it may be compiled."""
        self._unchanged_steps += 1
        return self._unchanged_steps > self._required

    @property
    def is_at_limit(self) -> bool:
        """Whether changes come so often that the user should be told."""
        return self._required >= _SOON
