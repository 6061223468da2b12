"""Losses between distributions: Kullback-Leibler, and Poisson for counts."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fanin.losses import functions
from fanin.losses.base import class_for
from fanin.losses.regression import OfNumbers, per_sample


@class_for(functions.kl_divergence)
class KLDivergence(OfNumbers):
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


@class_for(functions.poisson)
class Poisson(OfNumbers):
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
