"""A smaller learning rate where training no longer helps."""

from __future__ import annotations

import numpy as np

from fanin.callbacks.base import Logs
from fanin.callbacks.learning_rate import change_rates, rates
from fanin.callbacks.monitor import MonitorCallback


class ReduceLROnPlateau(MonitorCallback):
    """rate <- max(factor rate, min_lr) when a number has not become better for `patience` epochs.

    Args:
        monitor: which number, "val_loss" by default.
        factor: in [0, 1), 0.1 by default.
        patience: epochs without improvement that are put up with, 10 by default.
        verbose: 1 says so when the rate changes.
        mode: "min", "max" or "auto": what the metric says of itself.
        min_delta: how much better counts as better, 1e-4 by default.
        cooldown: epochs after a change that are not counted, 0 by default.
        min_lr: the smallest rate, 0 by default.

    The optimizer is fanin's or torch's; of the latter, every parameter group gets its smaller rate. Adds the learning
    rate of each epoch to the logs. Raises ValueError for another factor or mode; TypeError, before training, for an
    optimizer whose rate comes from a schedule. After Keras's `ReduceLROnPlateau`.

    >>> import fanin, torch
    >>> model = fanin.Sequential([fanin.layers.Dense(1)])
    >>> model.compile(fanin.optimizers.SGD(0.01), "mse")
    >>> history = model.fit(torch.ones(4, 2), torch.ones(4), epochs=4, verbose=0,
    ...                     callbacks=ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100.0))
    >>> [round(rate, 6) for rate in history.history["learning_rate"]]
    [0.01, 0.01, 0.005, 0.0025]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, mode, min_delta)
        if not 0.0 <= factor < 1.0:
            raise ValueError(f"ReduceLROnPlateau: factor must be in [0, 1), found {factor!r}.")
        self.factor = factor
        self.min_lr = min_lr
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.cooldown_counter = 0
        self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Start counting."""
        change_rates(self.model.optimizer, lambda rate: rate)  # what cannot be set fails now
        self.best = None
        self.cooldown_counter = 0
        self.wait = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare, and reduce if there was no improvement for too long."""
        if logs is not None:
            logs.update(rates(self.model.optimizer))
        value = self.monitored(logs)
        if value is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_better(value, self.best):
            self.best = value
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and self._reduce(epoch):
                self.cooldown_counter = self.cooldown
                self.wait = 0

    def in_cooldown(self) -> bool:
        """Whether a change was so recent that epochs are not counted."""
        return self.cooldown_counter > 0

    def _reduce(self, epoch: int) -> bool:
        optimizer = self.model.optimizer
        if not any(self._is_large(rate) for rate in rates(optimizer).values()):
            return False
        change_rates(optimizer, lambda rate: max(rate * self.factor, self.min_lr) if self._is_large(rate) else rate)
        if self.verbose:
            for name, rate in rates(optimizer).items():
                print(f"Epoch {epoch + 1}: {name} reduced to {rate:.6g}")
        return True

    def _is_large(self, rate: float) -> bool:
        return bool(np.float32(rate) > np.float32(self.min_lr))  # rates are kept in float32
