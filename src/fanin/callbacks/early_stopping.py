"""The end of training when it no longer helps."""

from __future__ import annotations

from typing import Any

import numpy as np

from fanin.callbacks.base import Logs
from fanin.callbacks.monitor import MonitorCallback


class EarlyStopping(MonitorCallback):
    """Stops training when a number has not become better for `patience` epochs.

    Args:
        monitor: which number.
        min_delta: how much better counts as better.
        patience: epochs without improvement that are put up with.
        verbose: 1 says so when it stops, and which weights it restores.
        mode: "min", "max" or "auto": what the metric says of itself; accuracies grow, losses shrink.
        baseline: a value that must be beaten.
        restore_best_weights: whether the model ends with the weights of its best epoch.
        start_from_epoch: epochs at the start that are not looked at.

    After Keras's `EarlyStopping`. A monitored name that does not exist warns and lists what there is.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Start counting."""
        self.wait = 0
        self.stopped_epoch = 0
        self.best = None
        self.best_epoch = 0
        self.best_weights: list[np.ndarray[Any, Any]] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare, and stop if there was no improvement for too long."""
        value = self.monitored(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        improved = self.is_better(value, self.best)
        if improved:
            self.best = value
            self.best_epoch = epoch
            self.best_weights = self.model.get_weights() if self.restore_best_weights else None
        beaten = improved and (self.baseline is None or self.is_better(value, self.baseline))
        self.wait = 0 if beaten else self.wait + 1
        if not improved and self.wait >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Say so, and bring back the best weights."""
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                print(f"Epoch {self.best_epoch + 1}: its weights, the best, are restored")
            self.model.set_weights(self.best_weights)
