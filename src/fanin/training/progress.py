"""The progress of a pass: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Logs = dict[str, Any]
_REFRESH_SECONDS = 0.2


def shown(logs: Logs) -> str:
    """ "loss: 0.3142 - accuracy: 0.9120" """
    return " - ".join(f"{name}: {_number(value)}" for name, value in logs.items())


def _number(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"[{' '.join(map(_number, value.ravel()))}]"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.4e}"


class Progress:
    """Shows one pass over data at a time.

    Args:
        verbose: 0 shows nothing, 1 or "auto" a bar, 2 one line at the end of each pass. Where standard output is no
            terminal, 1 means 2.
        epochs: the number of the last epoch, for the title; None for evaluate and predict.
    """

    def __init__(self, verbose: Any, epochs: int | None = None):
        if verbose not in ("auto", 0, 1, 2, True, False):
            raise ValueError(f"verbose must be 'auto', 0, 1 or 2, found {verbose!r}.")
        level = 1 if verbose == "auto" else int(verbose)
        self.level = 2 if level == 1 and not sys.stdout.isatty() else level
        self.epochs = epochs
        self._bar: Any = None

    def begin(self, title: str, steps: int | None) -> None:
        """Start a pass of so many steps (None: unknown)."""
        self._title, self._steps, self._step = title, steps, 0
        self._started = self._last = time.perf_counter()
        if self.level == 1:
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task(title, total=steps, numbers="")

    def advance(self, logs: Callable[[], Logs]) -> None:
        """Count a step. `logs` is only called when the bar is drawn, a few times a second."""
        self._step += 1
        now = time.perf_counter()
        if self._bar is not None and now - self._last >= _REFRESH_SECONDS:
            self._last = now
            self._bar.update(self._task, completed=self._step, numbers=shown(logs()))

    def end(self, logs: Logs) -> None:
        """Show the last numbers of a finished pass."""
        seconds = time.perf_counter() - self._started
        if self._bar is not None:
            self._bar.update(self._task, completed=self._step, total=self._step, numbers=shown(logs))
            self.close()
        elif self.level == 2:
            numbers = f" - {shown(logs)}" if logs else ""
            print(f"{self._title} - {self._step} steps - {seconds:.1f} s{numbers}", flush=True)

    def close(self) -> None:
        """Stop the bar, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _make_bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[numbers]}"), refresh_per_second=5,
    )  # fmt: skip
