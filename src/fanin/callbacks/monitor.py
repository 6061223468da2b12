"""What callbacks share that look at one number of each epoch: which way is better, and whether it has become so."""

from __future__ import annotations

import warnings

from fanin.callbacks.base import Callback, Logs


class MonitorCallback(Callback):
    """Base of the callbacks that look at one number.

    Args:
        monitor: its name in the logs, such as "val_loss".
        mode: "min", "max" or "auto": what the metric says of itself; a loss shrinks.
        min_delta: how much better counts as better.

    Raises ValueError for another mode, and, once the number is there, for "auto" with a metric that does not say.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0):
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{type(self).__name__}: mode must be 'auto', 'min' or 'max', found {mode!r}.")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)
        self.best: float | None = None

    def monitored(self, logs: Logs | None) -> float | None:
        """The number, or None with a warning that lists what there is."""
        value: float | None = (logs or {}).get(self.monitor)
        if value is None:
            known = ", ".join(logs or {})
            warnings.warn(
                f"{type(self).__name__} looks at {self.monitor!r}, which training does not give: {known}.", stacklevel=3
            )
        return value

    def is_better(self, value: float, reference: float | None) -> bool:
        """Whether `value` is better than `reference` by more than `min_delta`; every value is better than None."""
        grows = self._grows()
        if reference is None:
            return True
        return value - self.min_delta > reference if grows else value + self.min_delta < reference

    def _grows(self) -> bool:
        direction = self.mode
        if direction == "auto":
            is_loss = self.monitor.removeprefix("val_") == "loss"
            direction = "min" if is_loss else self.params.get("directions", {}).get(self.monitor)
        if direction is None:
            raise ValueError(
                f"{type(self).__name__}: nothing says whether {self.monitor!r} should grow or shrink; "
                "give mode='max' or mode='min'."
            )
        return bool(direction == "max")
