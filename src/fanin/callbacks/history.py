"""The numbers of each epoch, kept."""

from __future__ import annotations

from typing import Any

from fanin.callbacks.base import Callback, Logs


class History(Callback):
    """Collects the numbers of each epoch; `fit` returns one.

    Attributes:
        history: name -> list of numbers, one for each epoch.
        epoch: the epochs, counted from 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Count the epochs of this training."""
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Append the epoch's numbers."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
