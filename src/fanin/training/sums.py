"""The running sums of a pass over data: of losses and of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fanin.dtypes import widest_float
from fanin.training.step import Variables


class Sums:
    """The running sums of a pass, in tensors that every step changes in place.

    Attributes:
        losses: the sum of each loss, weighted by the rows of the batches.
        metrics: the sums of each metric.
        rows: the number of rows in the sums of losses, counted by the caller.
    """

    def __init__(self, losses: list[Tensor], metrics: list[Variables]):
        self.losses, self.metrics = losses, metrics
        self.rows = 0

    @classmethod
    def new(cls, losses: int, metrics: list[Variables], device: torch.device | None) -> Sums:
        """Zero sums for so many losses, and these sums of metrics."""
        return cls([torch.zeros((), dtype=widest_float(device), device=device) for _ in range(losses)], metrics)

    def tensors(self) -> list[Tensor]:
        """All sums."""
        return [*self.losses, *(value for variables in self.metrics for value in variables.values())]

    def restart(self, metrics: list[Variables]) -> None:
        """Start a new pass in the same tensors: losses become 0, metrics take these values."""
        self.forget_losses()
        with torch.no_grad():
            for old, new in zip(self.metrics, metrics, strict=True):
                for name, value in old.items():
                    value.copy_(new[name])

    def forget_losses(self) -> None:
        """Set the losses to 0."""
        self.rows = 0
        with torch.no_grad():
            for total in self.losses:
                total.zero_()

    def means(self) -> list[Tensor]:
        """The mean of each loss over the rows so far."""
        return [total / max(self.rows, 1) for total in self.losses]

    def fits(self, others: Sums) -> bool:
        """Whether both have the same metrics, shapes, dtypes and devices."""
        return self._kinds() == others._kinds()

    def _kinds(self) -> list[Any]:
        names = [list(variables) for variables in self.metrics]
        return [names, *((one.shape, one.dtype, one.device) for one in self.tensors())]

    def add(self, losses: Sequence[Tensor], metrics: list[Variables], rows: int) -> None:
        """Add the losses of a step, each the mean of so many rows, and take the new sums of the metrics."""
        for total, value in zip(self.losses, losses, strict=False):
            total.add_(value.detach(), alpha=rows)
        for old, new in zip(self.metrics, metrics, strict=True):
            for name, value in old.items():
                value.copy_(new[name])
