"""Losses between distributions: Kullback-Leibler, and Poisson for counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fanin.losses import functions
from fanin.losses.base import Loss
from fanin.losses.regression import per_sample
from fanin.losses.targets import check_finite


class KLDivergence(Loss):
    """sum(t log(t / p)) over C classes, for distributions t and p, both cut to [epsilon, 1].

    Args:
        reduction, dtype: see `Loss`.
        name: "kl_divergence" by default.

    Targets and predictions both (B, ..., C); else a ValueError. After Keras.

    >>> import torch
    >>> KLDivergence()(torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]]))
    tensor(0.1438)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "kl_divergence",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.kl_divergence(y_true, y_pred)

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """Targets must be finite and shaped like the output; else a `DataError`."""
        check_finite(y, output_shape, name)


class Poisson(Loss):
    """mean(p - t log(p + epsilon)), for counts t and rates p. Shapes (B, ..., C), equal, or (B,) against (B, 1).

    Args:
        reduction, dtype: see `Loss`.
        name: "poisson" by default.

    A negative rate gives NaN, as in Keras. Raises ValueError for shapes that would only fit by broadcasting. After
    Keras.

    >>> import torch
    >>> Poisson()(torch.tensor([[2.0]]), torch.tensor([[1.0]]))
    tensor(1.0000)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "poisson",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.poisson(*per_sample(y_true, y_pred, self.name))

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """Targets must be finite and shaped like the output; else a `DataError`."""
        check_finite(y, output_shape, name)
