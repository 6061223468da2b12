"""Errors of numbers, as metrics."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fanin.losses.base import same_shape, to_floats
from fanin.losses.functions import mean_absolute_error, mean_squared_error
from fanin.metrics.base import Metric, Variables
from fanin.metrics.mean import MeanMetricWrapper


def _squared(y_true: Tensor, y_pred: Tensor) -> Tensor:
    true, pred = same_shape(y_true, to_floats(y_pred), "root_mean_squared_error")
    return (pred - true).square()


class MeanSquaredError(MeanMetricWrapper):
    """Mean of (y_true - y_pred)^2 over all rows. Shapes equal, or (B,) against (B, 1).

    Args:
        name: "mean_squared_error" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> MeanSquaredError()([[0.0], [1.0]], [[2.0], [1.0]])
    tensor(2.)
    """

    direction = "min"

    def __init__(self, name: str | None = "mean_squared_error", dtype: Any = None):
        super().__init__(mean_squared_error, name, dtype)

    def values(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, ..., C) -> (B, ...)."""
        return mean_squared_error(*_columns(y_true, y_pred)), None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return Metric.get_config(self)


class MeanAbsoluteError(MeanMetricWrapper):
    """Mean of |y_true - y_pred| over all rows. Shapes equal, or (B,) against (B, 1).

    Args:
        name: "mean_absolute_error" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> MeanAbsoluteError()([[0.0], [1.0]], [[2.0], [1.0]])
    tensor(1.)
    """

    direction = "min"

    def __init__(self, name: str | None = "mean_absolute_error", dtype: Any = None):
        super().__init__(mean_absolute_error, name, dtype)

    def values(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, ..., C) -> (B, ...)."""
        return mean_absolute_error(*_columns(y_true, y_pred)), None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return Metric.get_config(self)


class RootMeanSquaredError(MeanMetricWrapper):
    """The square root of the mean of (y_true - y_pred)^2 over all rows.

    Args:
        name: "root_mean_squared_error" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> RootMeanSquaredError()([[0.0], [0.0]], [[3.0], [3.0]])
    tensor(3.)
    """

    direction = "min"

    def __init__(self, name: str | None = "root_mean_squared_error", dtype: Any = None):
        super().__init__(_squared, name, dtype)

    def compute(self, variables: Variables) -> Tensor:
        """sqrt(total / count), or 0."""
        return super().compute(variables).sqrt()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return Metric.get_config(self)


def _columns(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors as columns, so that each row keeps its own value and weight."""
    if y_true.ndim == 1 and y_pred.ndim == 1:
        return y_true.unsqueeze(-1), y_pred.unsqueeze(-1)
    return y_true, y_pred
