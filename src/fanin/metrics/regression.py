"""Errors of numbers, as metrics."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fanin import arguments
from fanin.losses import regression
from fanin.losses.base import same_shape, to_floats
from fanin.losses.functions import cosine_similarity, mean_absolute_error, mean_squared_error
from fanin.metrics.base import Variables, family
from fanin.metrics.mean import FixedMean


def _squared(y_true: Tensor, y_pred: Tensor) -> Tensor:
    true, pred = same_shape(y_true, to_floats(y_pred), "root_mean_squared_error")
    return (pred - true).square()


def _similarity(y_true: Tensor, y_pred: Tensor, axis: int) -> Tensor:
    return -cosine_similarity(y_true, y_pred, axis)


@family.entry("mse", "MSE")
class MeanSquaredError(FixedMean):
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
        return mean_squared_error(*columns(y_true, y_pred)), None


@family.entry("mae", "MAE")
class MeanAbsoluteError(FixedMean):
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
        return mean_absolute_error(*columns(y_true, y_pred)), None


@family.entry()
class RootMeanSquaredError(FixedMean):
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


@family.entry("mape", "MAPE")
class MeanAbsolutePercentageError(FixedMean):
    """Mean of 100 |y_true - y_pred| / max(|y_true|, epsilon) over all rows. Shapes equal, or (B,) against (B, 1).

    Args:
        name: "mean_absolute_percentage_error" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> MeanAbsolutePercentageError()([[2.0], [4.0]], [[1.0], [4.0]])
    tensor(25.)
    """

    direction = "min"

    def __init__(self, name: str | None = "mean_absolute_percentage_error", dtype: Any = None):
        super().__init__(regression.MeanAbsolutePercentageError(), name, dtype)


@family.entry("msle", "MSLE")
class MeanSquaredLogarithmicError(FixedMean):
    """Mean of (log(1 + y_true) - log(1 + y_pred))^2 over all rows. Shapes equal, or (B,) against (B, 1).

    Args:
        name: "mean_squared_logarithmic_error" by default.
        dtype: of the result; `floatx()` by default.

    Negative targets and predictions count as 0. After Keras.

    >>> MeanSquaredLogarithmicError()([[0.0], [1.0]], [[0.0], [3.0]])
    tensor(0.2402)
    """

    direction = "min"

    def __init__(self, name: str | None = "mean_squared_logarithmic_error", dtype: Any = None):
        super().__init__(regression.MeanSquaredLogarithmicError(), name, dtype)


@family.entry()
class LogCoshError(FixedMean):
    """Mean of log(cosh(y_pred - y_true)) over all rows. Shapes equal, or (B,) against (B, 1).

    Args:
        name: "logcosh" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> LogCoshError()([[0.0]], [[1.0]])
    tensor(0.4338)
    """

    direction = "min"

    def __init__(self, name: str | None = "logcosh", dtype: Any = None):
        super().__init__(regression.LogCosh(), name, dtype)


@family.entry()
class CosineSimilarity(FixedMean):
    """Mean of sum(y_true y_pred) / (|y_true| |y_pred|), vectors along `axis`: from -1, opposite, to 1, the same way.

    Args:
        name: "cosine_similarity" by default.
        dtype: of the result; `floatx()` by default.
        axis: the axis of the vectors, -1 by default.

    The loss of this name has the other sign. A vector of zeros gives 0. After Keras, whose config forgets `axis`; here
    it is written when it is not -1.

    >>> CosineSimilarity()([[0.0, 1.0]], [[0.0, 3.0]])
    tensor(1.)
    """

    direction = "max"

    def __init__(self, name: str | None = "cosine_similarity", dtype: Any = None, axis: int = -1):
        super().__init__(_similarity, name, dtype, axis=arguments.axis(axis))
        self.axis = axis

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {**super().get_config(), **({} if self.axis == -1 else {"axis": self.axis})}


def columns(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors as columns, so that each row keeps its own value and weight."""
    if y_true.ndim == 1 and y_pred.ndim == 1:
        return y_true.unsqueeze(-1), y_pred.unsqueeze(-1)
    return y_true, y_pred
