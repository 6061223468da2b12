"""What a pass adds up: losses, and the sums of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fanin.dtypes import widest_float
from fanin.training.step import Variables


class Sums:
    """What a pass adds up, in tensors that every step of the pass changes in place: losses, times rows, and metrics.

    `rows` is the number of rows that are in the losses; who runs the steps counts them.
    """

    def __init__(self, losses: list[Tensor], metrics: list[Variables]):
        self.losses, self.metrics = losses, metrics
        self.rows = 0

    @classmethod
    def new(cls, losses: int, metrics: list[Variables], device: torch.device | None) -> Sums:
        """Sums of 0 for so many losses, and of these metrics."""
        return cls([torch.zeros((), dtype=widest_float(device), device=device) for _ in range(losses)], metrics)

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [*self.losses, *(value for variables in self.metrics for value in variables.values())]

    def restart(self, metrics: list[Variables]) -> None:
        """Begin a pass: losses are 0, metrics as given."""
        self.forget_losses()
        with torch.no_grad():
            for old, new in zip(self.metrics, metrics, strict=True):
                for name, value in old.items():
                    value.copy_(new[name])

    def forget_losses(self) -> None:
        """Losses are 0 again."""
        self.rows = 0
        with torch.no_grad():
            for total in self.losses:
                total.zero_()

    def means(self) -> list[Tensor]:
        """The mean of each loss over the rows so far."""
        return [total / max(self.rows, 1) for total in self.losses]

    def fits(self, others: Sums) -> bool:
        """Whether those are sums of the same kind, on the same device."""
        return self._kinds() == others._kinds()

    def _kinds(self) -> list[Any]:
        names = [list(variables) for variables in self.metrics]
        return [names, *((one.shape, one.dtype, one.device) for one in self.tensors())]

    def add(self, losses: Sequence[Tensor], metrics: list[Variables], rows: int) -> None:
        """Add what a step gave: its losses, each the mean of so many rows, and the new sums of the metrics."""
        for total, value in zip(self.losses, losses, strict=False):
            total.add_(value.detach(), alpha=rows)
        for old, new in zip(self.metrics, metrics, strict=True):
            for name, value in old.items():
                value.copy_(new[name])
