"""Losses for numbers: squared, absolute and Huber."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fanin.losses import functions
from fanin.losses.base import Loss, require_number, same_shape
from fanin.losses.targets import check_finite


def per_sample(y_true: Tensor, y_pred: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Targets and predictions of one shape, vectors as columns, so that each row keeps its own value."""
    true, pred = same_shape(y_true, y_pred, what)
    return (true.unsqueeze(-1), pred.unsqueeze(-1)) if pred.ndim == 1 else (true, pred)


class MeanSquaredError(Loss):
    """mean((y_true - y_pred)^2). Shapes (B, ..., C), equal, or (B,) against (B, 1).

    Args:
        reduction, dtype: see `Loss`.
        name: "mean_squared_error" by default.

    Raises ValueError for shapes that would only fit by broadcasting. After Keras.

    >>> import torch
    >>> MeanSquaredError()(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [1.0]]))
    tensor(2.)
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "mean_squared_error", dtype: Any = None
    ):
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.mean_squared_error(*per_sample(y_true, y_pred, self.name))

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """Targets must be finite and shaped like the output; else a `DataError`."""
        check_finite(y, output_shape, name)


class MeanAbsoluteError(Loss):
    """mean(|y_true - y_pred|). Shapes (B, ..., C), equal, or (B,) against (B, 1).

    Args:
        reduction, dtype: see `Loss`.
        name: "mean_absolute_error" by default.

    Raises ValueError for shapes that would only fit by broadcasting. After Keras.

    >>> import torch
    >>> MeanAbsoluteError()(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [1.0]]))
    tensor(1.)
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "mean_absolute_error", dtype: Any = None
    ):
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.mean_absolute_error(*per_sample(y_true, y_pred, self.name))

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """Targets must be finite and shaped like the output; else a `DataError`."""
        check_finite(y, output_shape, name)


class Huber(Loss):
    """Squared for errors up to `delta`, linear beyond: e^2 / 2, or delta |e| - delta^2 / 2.

    Args:
        delta: where the line begins, above 0; 1.0 by default.
        reduction, dtype: see `Loss`.
        name: "huber_loss" by default.

    Raises ValueError for a delta that is not positive, and for shapes that would only fit by broadcasting.
    After Keras, whose config forgets `delta`; here it is written when it is not 1.

    >>> import torch
    >>> Huber(delta=2.0)(torch.tensor([[0.0]]), torch.tensor([[3.0]]))
    tensor(4.)
    """

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "huber_loss",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)
        self.delta = require_number("delta", delta, 0.0)
        if not 0 < self.delta < float("inf"):
            raise ValueError(f"delta must be positive and finite, found {delta!r}.")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.huber(*per_sample(y_true, y_pred, self.name), delta=self.delta)

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """Targets must be finite and shaped like the output; else a `DataError`."""
        check_finite(y, output_shape, name)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {**super().get_config(), **({} if self.delta == 1.0 else {"delta": self.delta})}
