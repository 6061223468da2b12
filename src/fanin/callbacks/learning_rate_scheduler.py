"""A learning rate for each epoch, from a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fanin.callbacks.base import Callback, Logs
from fanin.callbacks.learning_rate import change_rates, rates


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch to schedule(epoch, rate).

    Args:
        schedule: a function of the epoch, counted from 0, and the rate so far; or of the epoch alone. Returns a number.
        verbose: 1 says so.

    The optimizer is fanin's or torch's; of the latter, each parameter group's rate goes through the function. Adds the
    learning rate of each epoch to the logs. Raises ValueError for what is not a finite number of 0 or more; TypeError
    for an optimizer whose rate comes from a schedule. After Keras's `LearningRateScheduler`.

    >>> import fanin, torch
    >>> model = fanin.Sequential([fanin.layers.Dense(1)])
    >>> model.compile(fanin.optimizers.SGD(0.5), "mse")
    >>> halve = LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    >>> model.fit(torch.ones(4, 2), torch.ones(4), epochs=3, callbacks=halve, verbose=0).history["learning_rate"]
    [0.5, 0.25, 0.125]
    """

    def __init__(self, schedule: Callable[..., Any], verbose: int = 0):
        super().__init__()
        if not callable(schedule):
            raise TypeError(f"LearningRateScheduler: schedule must be a function, found {schedule!r}.")
        self.schedule = schedule
        self.verbose = verbose
        self._takes_rate = _takes_two(schedule)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Set the rate."""
        optimizer = self.model.optimizer
        change_rates(optimizer, lambda rate: self.schedule(epoch, rate) if self._takes_rate else self.schedule(epoch))
        if self.verbose:
            for name, rate in rates(optimizer).items():
                print(f"Epoch {epoch + 1}: {name} set to {rate:.6g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Add the rate to the logs."""
        if logs is not None:
            logs.update(rates(self.model.optimizer))


def _takes_two(schedule: Callable[..., Any]) -> bool:
    try:
        inspect.signature(schedule).bind(0, 0.0)
    except TypeError:
        return False
    except ValueError:  # no signature to be had
        return True
    return True
