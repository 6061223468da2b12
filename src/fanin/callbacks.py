"""Callbacks: what happens at the edges of training, of an epoch, and of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

Logs = dict[str, float]
_BATCH_HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


class Callback:
    """The base of callbacks; write the hooks you need. `self.model` is the model, `self.params` say epochs and steps.

    Hooks get `logs`, a dict of numbers such as {"loss": 0.3, "val_loss": 0.4}. `self.model.stop_training = True`
    ends training after the epoch. Batch hooks make each step wait for its numbers; leave them out for speed.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.params: dict[str, Any] = {}

    def set_model(self, model: Any) -> None:
        """Called before training with the model."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called before training with {"epochs", "steps", "verbose"}."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before each epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After each epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before each step."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After each step."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before an evaluation."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After an evaluation."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Before predictions."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """After predictions."""


class CallbackList:
    """Callbacks called one after another.

    Args:
        callbacks: Callback objects, and torch learning-rate schedulers, which step after each epoch.
        model: handed to each.
        params: handed to each.
    """

    def __init__(self, callbacks: Iterable[Any], model: Any, params: dict[str, Any]):
        self.callbacks = [_as_callback(callback) for callback in callbacks]
        for callback in self.callbacks:
            callback.set_params(params)
            callback.set_model(model)
        self.wants_batches = any(_overrides(callback, _BATCH_HOOKS) for callback in self.callbacks)

    def call(self, hook: str, *args: Any) -> None:
        """Call one hook of every callback."""
        for callback in self.callbacks:
            getattr(callback, hook)(*args)


def _as_callback(value: Any) -> Any:
    if isinstance(value, (torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)):
        return SchedulerCallback(value)
    if not hasattr(value, "on_epoch_end"):
        raise TypeError(f"callbacks: expected Callback objects or torch learning-rate schedulers, found {value!r}.")
    return value


def _overrides(callback: Any, hooks: Iterable[str]) -> bool:
    return any(getattr(type(callback), hook, None) is not getattr(Callback, hook, None) for hook in hooks)


class History(Callback):
    """Collects the numbers of each epoch; `fit` returns one.

    Attributes:
        history: name -> list of numbers, one for each epoch.
        epoch: the epochs, counted from 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Append the epoch's numbers."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class SchedulerCallback(Callback):
    """Steps a torch learning-rate scheduler after each epoch; ReduceLROnPlateau sees val_loss, or else loss."""

    def __init__(self, scheduler: Any):
        super().__init__()
        self.scheduler = scheduler

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Step the scheduler."""
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            numbers = logs or {}
            self.scheduler.step(numbers.get("val_loss", numbers.get("loss", 0.0)))
        else:
            self.scheduler.step()


class EarlyStopping(Callback):
    """Stops training when a number has not become better for `patience` epochs.

    Args:
        monitor: which number.
        min_delta: how much better counts as better.
        patience: epochs without improvement that are put up with.
        verbose: 1 says so when it stops.
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
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"EarlyStopping: mode must be 'auto', 'min' or 'max', found {mode!r}.")
        self.monitor = monitor
        self.min_delta = abs(min_delta)
        self.patience = patience
        self.verbose = verbose
        self.mode = mode
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch

    def _is_better(self, value: float, reference: float) -> bool:
        known = self.params.get("directions", {})
        grows = self.mode == "max" or (self.mode == "auto" and known.get(self.monitor) == "max")
        return value - self.min_delta > reference if grows else value + self.min_delta < reference

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Start counting."""
        self.wait = 0
        self.stopped_epoch = 0
        self.best: float | None = None
        self.best_epoch = 0
        self.best_weights: list[np.ndarray[Any, Any]] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare, and stop if there was no improvement for too long."""
        value = (logs or {}).get(self.monitor)
        if value is None:
            known = ", ".join(logs or {})
            warnings.warn(
                f"EarlyStopping looks at {self.monitor!r}, which training does not give: {known}.", stacklevel=2
            )
            return
        if epoch < self.start_from_epoch:
            return
        improved = self.best is None or self._is_better(value, self.best)
        if improved or (self.restore_best_weights and self.best_weights is None):
            self.best_epoch = epoch
            self.best_weights = self.model.get_weights() if self.restore_best_weights else None
        if improved:
            self.best = value
        beaten = improved and (self.baseline is None or self._is_better(value, self.baseline))
        self.wait = 0 if beaten else self.wait + 1
        if not improved and self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Say so, and bring back the best weights."""
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            self.model.set_weights(self.best_weights)


__all__ = ["Callback", "CallbackList", "EarlyStopping", "History"]
