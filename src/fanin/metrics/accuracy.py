"""How often predictions are right: functions that give 1 or 0 per sample, and metrics that average them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin import arguments, config
from fanin.dtypes import as_dtype
from fanin.losses.base import same_shape
from fanin.metrics.base import as_pair, family
from fanin.metrics.mean import FixedMean
from fanin.registry import Family

# The functions have a table of their own: in `metrics.get`, "binary_accuracy" is the class, as in Keras.
_functions: Family[Any] = Family("metric function", "keras.metrics")


def _floats(matches: Tensor) -> Tensor:
    return matches.to(as_dtype(config.floatx()))


# --- what matches, as booleans ----------------------------------------------------------------------------------------


def _equal(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return torch.eq(*same_shape(y_true, y_pred, "accuracy"))


def _binary(y_true: Tensor, y_pred: Tensor, threshold: float = 0.5) -> Tensor:
    true, pred = same_shape(y_true, y_pred, "binary_accuracy")
    return torch.eq(pred > threshold, true)


def _categorical(y_true: Tensor, y_pred: Tensor) -> Tensor:
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"categorical_accuracy: y_true has shape {tuple(y_true.shape)} and y_pred {tuple(y_pred.shape)}; "
            "they must be equal."
        )
    return torch.eq(_argmax(y_true), _argmax(y_pred))


def _sparse(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return torch.eq(_class_ids(y_true, y_pred, "sparse_categorical_accuracy"), _argmax(y_pred))


def _top_k(y_true: Tensor, y_pred: Tensor, k: int = 5) -> Tensor:
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"top_k_categorical_accuracy: y_true has shape {tuple(y_true.shape)} and y_pred {tuple(y_pred.shape)}; "
            "they must be equal."
        )
    return _in_top_k(_argmax(y_true), y_pred, k)


def _sparse_top_k(y_true: Tensor, y_pred: Tensor, k: int = 5, from_sorted_ids: bool = False) -> Tensor:
    ids = _class_ids(y_true, y_pred, "sparse_top_k_categorical_accuracy")
    if from_sorted_ids:
        return torch.eq(ids.unsqueeze(-1), y_pred[..., :k]).any(-1)
    return _in_top_k(ids.long(), y_pred, k)


def _argmax(values: Tensor) -> Tensor:
    """The place of the first largest entry of each row."""
    return values.to(torch.uint8).argmax(-1) if values.dtype == torch.bool else values.argmax(-1)


def _class_ids(y_true: Tensor, y_pred: Tensor, what: str) -> Tensor:
    ids = y_true.squeeze(-1) if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1 else y_true
    if ids.shape != y_pred.shape[:-1]:
        raise ValueError(
            f"{what}: predictions of shape {tuple(y_pred.shape)} need class ids of shape {tuple(y_pred.shape[:-1])}, "
            f"found {tuple(y_true.shape)}."
        )
    return ids


def _in_top_k(ids: Tensor, y_pred: Tensor, k: int) -> Tensor:
    """Whether the prediction for each id reaches the k-th largest; ties count as reached, k beyond C means C."""
    smallest = y_pred.topk(min(k, y_pred.shape[-1]), dim=-1).values[..., -1:]
    return (y_pred.gather(-1, ids.unsqueeze(-1)) >= smallest).squeeze(-1)


# --- Keras's functions ------------------------------------------------------------------------------------------------


@_functions.entry()
def accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """1 where y_true == y_pred, else 0; shapes equal, or (B,) against (B, 1).

    >>> accuracy([1, 2], [1, 3])
    tensor([1., 0.])
    """
    return _floats(_equal(*as_pair(y_true, y_pred)))


@_functions.entry()
def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Tensor:
    """1 where (y_pred > threshold) == y_true, else 0; shapes equal, or (B,) against (B, 1).

    >>> binary_accuracy([[1.0], [1.0]], [[0.6], [0.4]])
    tensor([[1.],
            [0.]])
    """
    return _floats(_binary(*as_pair(y_true, y_pred), threshold))


@_functions.entry()
def categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """1 where the largest of y_true and of y_pred are at the same place: (B, ..., C) both -> (B, ...).

    >>> categorical_accuracy([[0.0, 1.0]], [[0.4, 0.6]])
    tensor([1.])
    """
    return _floats(_categorical(*as_pair(y_true, y_pred)))


@_functions.entry()
def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """1 where the largest of y_pred is at y_true: (B, ...) or (B, ..., 1), and (B, ..., C) -> (B, ...).

    >>> sparse_categorical_accuracy([1], [[0.4, 0.6]])
    tensor([1.])
    """
    return _floats(_sparse(*as_pair(y_true, y_pred)))


@_functions.entry()
def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Tensor:
    """1 where the class of the one-hot y_true is among the k largest of y_pred: (B, ..., C) both -> (B, ...).

    >>> top_k_categorical_accuracy([[0.0, 1.0, 0.0]], [[0.5, 0.3, 0.2]], k=2)
    tensor([1.])
    """
    return _floats(_top_k(*as_pair(y_true, y_pred), k))


@_functions.entry()
def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False) -> Tensor:
    """1 where class y_true is among the k largest of y_pred: (B, ...), (B, ..., C) -> (B, ...).

    With `from_sorted_ids`, y_pred holds class ids, the best first.

    >>> sparse_top_k_categorical_accuracy([1], [[0.5, 0.3, 0.2]], k=2)
    tensor([1.])
    """
    return _floats(_sparse_top_k(*as_pair(y_true, y_pred), k, from_sorted_ids))


# --- metrics ----------------------------------------------------------------------------------------------------------


@family.entry()
class Accuracy(FixedMean):
    """How often y_pred equals y_true exactly.

    Args:
        name: "accuracy" by default.
        dtype: of the result; `floatx()` by default.

    After Keras. For probabilities use one of the others; "accuracy" in `compile` picks it by the shapes.

    >>> Accuracy()([1, 2, 3], [1, 2, 0])
    tensor(0.6667)
    """

    direction = "max"

    def __init__(self, name: str | None = "accuracy", dtype: Any = None):
        super().__init__(_equal, name, dtype)


@family.entry()
class BinaryAccuracy(FixedMean):
    """How often y_pred > threshold agrees with y_true, 0 or 1. Shapes equal, or (B,) against (B, 1).

    Args:
        name: "binary_accuracy" by default.
        dtype: of the result; `floatx()` by default.
        threshold: 0.5 by default; 0.0 for logits.

    After Keras.

    >>> BinaryAccuracy()([1.0, 0.0], [[0.9], [0.8]])
    tensor(0.5000)
    """

    direction = "max"

    def __init__(self, name: str | None = "binary_accuracy", dtype: Any = None, threshold: float = 0.5):
        arguments.finite("threshold", threshold)
        super().__init__(_binary, name, dtype, threshold=threshold)
        self.threshold = threshold

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {**super().get_config(), "threshold": self.threshold}


@family.entry()
class CategoricalAccuracy(FixedMean):
    """How often the largest of y_pred is the class of y_true, one-hot; both (B, ..., C).

    Args:
        name: "categorical_accuracy" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> CategoricalAccuracy()([[0, 1], [1, 0]], [[0.1, 0.9], [0.2, 0.8]])
    tensor(0.5000)
    """

    direction = "max"

    def __init__(self, name: str | None = "categorical_accuracy", dtype: Any = None):
        super().__init__(_categorical, name, dtype)


@family.entry()
class SparseCategoricalAccuracy(FixedMean):
    """How often the largest of y_pred (B, ..., C) is class y_true, (B, ...) or (B, ..., 1).

    Args:
        name: "sparse_categorical_accuracy" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> SparseCategoricalAccuracy()([1, 0], [[0.1, 0.9], [0.2, 0.8]])
    tensor(0.5000)
    """

    direction = "max"

    def __init__(self, name: str | None = "sparse_categorical_accuracy", dtype: Any = None):
        super().__init__(_sparse, name, dtype)


@family.entry()
class TopKCategoricalAccuracy(FixedMean):
    """How often the class of the one-hot y_true is among the k largest of y_pred; both (B, ..., C).

    Args:
        k: 5 by default; beyond C it means C.
        name: "top_k_categorical_accuracy" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> TopKCategoricalAccuracy(k=2)([[0, 1, 0], [0, 0, 1]], [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    tensor(0.5000)
    """

    direction = "max"

    def __init__(self, k: int = 5, name: str | None = "top_k_categorical_accuracy", dtype: Any = None):
        self.k = arguments.positive("k", k)
        super().__init__(_top_k, name, dtype, k=self.k)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {**super().get_config(), "k": self.k}


@family.entry()
class SparseTopKCategoricalAccuracy(FixedMean):
    """How often class y_true (B, ...) is among the k largest of y_pred (B, ..., C).

    Args:
        k: 5 by default; beyond C it means C.
        name: "sparse_top_k_categorical_accuracy" by default.
        dtype: of the result; `floatx()` by default.
        from_sorted_ids: whether y_pred holds class ids, the best first, instead of scores.

    After Keras.

    >>> SparseTopKCategoricalAccuracy(k=2)([1, 2], [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    tensor(0.5000)
    """

    direction = "max"

    def __init__(
        self,
        k: int = 5,
        name: str | None = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ):
        self.k = arguments.positive("k", k)
        self.from_sorted_ids = from_sorted_ids
        super().__init__(_sparse_top_k, name, dtype, k=self.k, from_sorted_ids=from_sorted_ids)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        own = {"from_sorted_ids": True} if self.from_sorted_ids else {}
        return {**super().get_config(), "k": self.k, **own}
