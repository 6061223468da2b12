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
            numbers = {"loss": 0.0, **(logs or {})}
            self.scheduler.step(numbers["val_loss" if "val_loss" in numbers else "loss"])
        else:
            self.scheduler.step()
