"""torch's learning-rate schedulers as callbacks."""

from __future__ import annotations

from typing import Any

import torch

from fanin.callbacks.base import Callback, Logs


class SchedulerCallback(Callback):
    """Steps a torch learning-rate scheduler after each epoch; ReduceLROnPlateau sees val_loss, or else loss."""

    def __init__(self, scheduler: Any):
        super().__init__()
        self.scheduler = scheduler

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Step the scheduler."""
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            numbers = logs or {}
            watched = "val_loss" if "val_loss" in numbers else "loss"
            if watched not in numbers:
                raise ValueError(
                    f"ReduceLROnPlateau needs val_loss or loss, found {sorted(numbers)}. Step it in a callback of your "
                    "own, by the number that it shall see."
                )
            self.scheduler.step(numbers[watched])
        else:
            self.scheduler.step()
