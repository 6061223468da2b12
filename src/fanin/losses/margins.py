"""Losses that ask for a margin: nothing to pay once the right answer is ahead by 1."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fanin.losses import functions
from fanin.losses.base import class_for
from fanin.losses.regression import OfNumbers, per_sample


@class_for(functions.hinge)
class Hinge(OfNumbers):
    """mean(max(1 - t p, 0)), for targets t of -1 and 1. Shapes (B, ..., C), equal, or (B,) against (B, 1).

    Args:
        reduction, dtype: see `Loss`.
        name: "hinge" by default.

    Where all targets of a batch are 0 or 1, a 0 means -1. Raises ValueError for shapes that would only fit by
    broadcasting. After Keras.

    >>> import torch
    >>> Hinge()(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.5], [0.5]]))
    tensor(1.)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "hinge",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.hinge(*per_sample(y_true, y_pred, self.name))


@class_for(functions.squared_hinge)
class SquaredHinge(OfNumbers):
    """mean(max(1 - t p, 0)^2), for targets t of -1 and 1. Shapes (B, ..., C), equal, or (B,) against (B, 1).

    Args:
        reduction, dtype: see `Loss`.
        name: "squared_hinge" by default.

    Where all targets of a batch are 0 or 1, a 0 means -1. Raises ValueError for shapes that would only fit by
    broadcasting. After Keras.

    >>> import torch
    >>> SquaredHinge()(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.5], [0.5]]))
    tensor(1.2500)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "squared_hinge",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.squared_hinge(*per_sample(y_true, y_pred, self.name))


@class_for(functions.categorical_hinge)
class CategoricalHinge(OfNumbers):
    """max(1 + max((1 - t) p) - sum(t p), 0) over C classes, for one-hot targets t.

    Args:
        reduction, dtype: see `Loss`.
        name: "categorical_hinge" by default.

    Targets and predictions both (B, ..., C), scores of any size; else a ValueError. After Keras.

    >>> import torch
    >>> CategoricalHinge()(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.75]]))
    tensor(0.7500)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_hinge",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.categorical_hinge(y_true, y_pred)
