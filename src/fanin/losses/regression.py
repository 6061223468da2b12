"""Losses for numbers: squared, absolute, relative, logarithmic, Huber, log-cosh and cosine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fanin import arguments
from fanin.losses import functions
from fanin.losses.base import Loss, class_for, same_shape
from fanin.losses.targets import check_finite


def per_sample(y_true: Tensor, y_pred: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Targets and predictions of one shape, vectors as columns, so that each row keeps its own value."""
    true, pred = same_shape(y_true, y_pred, what)
    return (true.unsqueeze(-1), pred.unsqueeze(-1)) if pred.ndim == 1 else (true, pred)


class OfNumbers(Loss):
    """A loss whose targets are any finite numbers."""

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """Targets must be finite and shaped like the output; else a `DataError`."""
        check_finite(y, output_shape, name)


@class_for(functions.mean_squared_error)
class MeanSquaredError(OfNumbers):
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


@class_for(functions.mean_absolute_error)
class MeanAbsoluteError(OfNumbers):
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


@class_for(functions.mean_absolute_percentage_error)
class MeanAbsolutePercentageError(OfNumbers):
    """100 mean(|y_true - y_pred| / max(|y_true|, epsilon)). Shapes (B, ..., C), equal, or (B,) against (B, 1).

    Args:
        reduction, dtype: see `Loss`.
        name: "mean_absolute_percentage_error" by default.

    A target of 0 makes it huge, as in Keras. Raises ValueError for shapes that would only fit by broadcasting.
    After Keras.

    >>> import torch
    >>> MeanAbsolutePercentageError()(torch.tensor([[2.0], [4.0]]), torch.tensor([[1.0], [4.0]]))
    tensor(25.)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_absolute_percentage_error",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.mean_absolute_percentage_error(*per_sample(y_true, y_pred, self.name))


@class_for(functions.mean_squared_logarithmic_error)
class MeanSquaredLogarithmicError(OfNumbers):
    """mean((log(1 + y_true) - log(1 + y_pred))^2). Shapes (B, ..., C), equal, or (B,) against (B, 1).

    Args:
        reduction, dtype: see `Loss`.
        name: "mean_squared_logarithmic_error" by default.

    Negative targets and predictions count as 0. Raises ValueError for shapes that would only fit by broadcasting.
    After Keras.

    >>> import torch
    >>> MeanSquaredLogarithmicError()(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]]))
    tensor(0.2402)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_squared_logarithmic_error",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.mean_squared_logarithmic_error(*per_sample(y_true, y_pred, self.name))


@class_for(functions.huber)
class Huber(OfNumbers):
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
        self.delta = arguments.number("delta", delta)
        if not 0 < self.delta < float("inf"):
            raise ValueError(f"delta must be positive and finite, found {delta!r}.")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.huber(*per_sample(y_true, y_pred, self.name), delta=self.delta)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {**super().get_config(), **({} if self.delta == 1.0 else {"delta": self.delta})}


@class_for(functions.log_cosh)
class LogCosh(OfNumbers):
    """mean(log(cosh(y_pred - y_true))): about e^2 / 2 for small errors e, |e| - log 2 for large ones.

    Args:
        reduction, dtype: see `Loss`.
        name: "log_cosh" by default.

    Shapes (B, ..., C), equal, or (B,) against (B, 1); else a ValueError. After Keras.

    >>> import torch
    >>> LogCosh()(torch.tensor([[0.0]]), torch.tensor([[1.0]]))
    tensor(0.4338)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "log_cosh",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.log_cosh(*per_sample(y_true, y_pred, self.name))


@class_for(functions.cosine_similarity)
class CosineSimilarity(OfNumbers):
    """-cos of the angle between y_true and y_pred, vectors along `axis`: from -1, the same way, to 1, opposite.

    Args:
        axis: the axis of the vectors, -1 by default.
        reduction, dtype: see `Loss`.
        name: "cosine_similarity" by default.

    A vector of zeros gives 0. Shapes (B, ..., C), equal, or (B,) against (B, 1); else a ValueError. After Keras, whose
    config forgets `axis`; here it is written when it is not -1.

    >>> import torch
    >>> CosineSimilarity()(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 3.0]]))
    tensor(-1.)
    """

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "cosine_similarity",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)
        self.axis = arguments.axis(axis)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.cosine_similarity(y_true, y_pred, self.axis)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {**super().get_config(), **({} if self.axis == -1 else {"axis": self.axis})}
