"""Losses for classes: binary, one-hot and class ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fanin import arguments
from fanin.losses import functions
from fanin.losses.base import Loss, class_for
from fanin.losses.regression import per_sample
from fanin.losses.targets import check_binary, check_categorical, check_class_ids


@class_for(functions.binary_crossentropy)
class BinaryCrossentropy(Loss):
    """-(t log p + (1 - t) log(1 - p)), averaged: one or many yes-or-no answers.

    Args:
        from_logits: whether predictions are logits; False: probabilities, cut to [epsilon, 1 - epsilon].
        label_smoothing: s in [0, 1], 0 by default; targets become t (1 - s) + s / 2.
        axis: the axis of the mean, -1 by default.
        reduction, dtype: see `Loss`.
        name: "binary_crossentropy" by default.

    Targets in [0, 1], which `fit` checks. Raises ValueError unless they are shaped like the predictions, (B,) against
    (B, 1) allowed. After Keras.

    >>> import torch
    >>> BinaryCrossentropy()(torch.tensor([1.0, 0.0]), torch.tensor([[0.5], [0.5]]))
    tensor(0.6931)
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)
        self.from_logits = from_logits
        self.label_smoothing = arguments.number("label_smoothing", label_smoothing, 0, 1, ends="[]")
        self.axis = arguments.axis(axis)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        true, pred = per_sample(y_true, y_pred, self.name)
        return functions.binary_crossentropy(true, pred, self.from_logits, self.label_smoothing, self.axis)

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """Targets must lie within [0, 1] and be shaped like the output; else a `DataError`."""
        check_binary(y, output_shape, name)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        own = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing, "axis": self.axis}
        return {**super().get_config(), **own}


@class_for(functions.categorical_crossentropy)
class CategoricalCrossentropy(Loss):
    """-sum(t log p) over C classes, for one-hot or soft targets.

    Args:
        from_logits: whether predictions are logits; False: probabilities, divided by their sum and cut to
            [epsilon, 1 - epsilon].
        label_smoothing: s in [0, 1], 0 by default; targets become t (1 - s) + s / C.
        axis: the axis of the classes, -1 by default.
        reduction, dtype: see `Loss`.
        name: "categorical_crossentropy" by default.

    Targets and predictions both (B, ..., C); else a ValueError. After Keras.

    >>> import torch
    >>> CategoricalCrossentropy(from_logits=True)(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))
    tensor(0.6931)
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)
        self.from_logits = from_logits
        self.label_smoothing = arguments.number("label_smoothing", label_smoothing, 0, 1, ends="[]")
        self.axis = arguments.axis(axis)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B, ..., C) -> (B, ...)."""
        return functions.categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing, self.axis)

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """Targets must be shaped like the output, lie within [0, 1] and sum to 1; else a `DataError`."""
        check_categorical(y, output_shape, name, self.axis)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        own = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing, "axis": self.axis}
        return {**super().get_config(), **own}


@class_for(functions.sparse_categorical_crossentropy)
class SparseCategoricalCrossentropy(Loss):
    """-log p[y_true], for class ids: targets (B, ...) or (B, ..., 1), predictions (B, ..., C).

    Args:
        from_logits: whether predictions are logits; False: probabilities, divided by their sum and cut to
            [epsilon, 1 - epsilon].
        ignore_class: rows with this id do not count, not even in the mean; None (default) for none.
        reduction, dtype: see `Loss`.
        axis: the axis of the classes, -1 by default.
        name: "sparse_categorical_crossentropy" by default.

    Ids keep their integer dtype, so that they are exact above 2^24. Raises ValueError for shapes that do not fit.
    After Keras, whose config forgets `axis`; here it is written when it is not -1.

    >>> import torch
    >>> SparseCategoricalCrossentropy(from_logits=True)(torch.tensor([1]), torch.zeros(1, 2))
    tensor(0.6931)
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(name, reduction, dtype)
        self.from_logits = from_logits
        self.ignore_class = arguments.integer("ignore_class", ignore_class)
        self.axis = arguments.axis(axis)

    def cast_targets(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Class ids stay as they are."""
        return y_true

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Targets (B, ...) and predictions (B, ..., C) -> (B, ...)."""
        return functions.sparse_categorical_crossentropy(y_true, y_pred, self.from_logits, self.ignore_class, self.axis)

    def mask(self, y_true: Tensor, y_pred: Tensor) -> Tensor | None:
        """False for rows of `ignore_class`."""
        if self.ignore_class is None:
            return None
        ids = y_true.squeeze(self.axis) if y_true.ndim == y_pred.ndim else y_true
        return ids != self.ignore_class

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """Targets must be class ids from 0 to C - 1, or `ignore_class`; else a `DataError`."""
        check_class_ids(y, output_shape, name, self.ignore_class, self.axis)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        own = {"from_logits": self.from_logits, "ignore_class": self.ignore_class}
        return {**super().get_config(), **own, **({} if self.axis == -1 else {"axis": self.axis})}
