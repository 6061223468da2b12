"""Counts of right and wrong yes-or-no answers at thresholds, as metrics, and what is made of them: precision, recall.

T thresholds; a prediction p is a yes at threshold t when p > t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanin import arguments, config
from fanin.dtypes import widest_float
from fanin.losses.base import align_weights, divide_or_zero, same_shape
from fanin.metrics.base import Metric, Variables, as_pair, family

_NEVER = -1e10  # Keras's stand-in for "not among the top k": no threshold lies below it
COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")


def even(thresholds: Sequence[float]) -> bool:
    """Whether three or more thresholds divide [0, 1] evenly, so that a prediction's place is a multiplication."""
    places = np.arange(len(thresholds), dtype=np.float32) / max(1, len(thresholds) - 1)
    return len(thresholds) >= 3 and bool(np.allclose(thresholds, places, atol=config.epsilon()))


def confusion(
    y_true: Any,
    y_pred: Any,
    sample_weight: Any,
    thresholds: Sequence[float],
    evenly: bool,
    what: str,
    top_k: int | None = None,
    class_id: int | None = None,
    label_weights: Tensor | None = None,
    by_label: bool = False,
) -> dict[str, Tensor]:
    """The weighted counts of one batch, each (T,), or (T, L) by label, by the names in `COUNTS`.

    Args:
        y_true: 0 or 1 (anything but 0 is a yes), of the shape of y_pred, or (B,) against (B, 1).
        y_pred: (B, ...), in [0, 1] where thresholds are even.
        sample_weight: one per row or per value; None for 1.
        thresholds: T numbers.
        evenly: whether they divide [0, 1] evenly, as `even` says; ends beyond [0, 1] then count everything.
        what: a name for messages.
        top_k: only the k largest of a row can be yes.
        class_id: only this entry of the last dimension counts.
        label_weights: what the entries of the last dimension weigh.
        by_label: whether to count them, L in (B, L), apart.

    Raises ValueError for shapes that do not fit.
    """
    true, pred = as_pair(y_true, y_pred)
    true, pred = same_shape(true, pred.to(torch.float32), what)
    weight = None if sample_weight is None else align_weights(pred, sample_weight, what)
    if top_k is not None:
        places = pred.topk(top_k, dim=-1).indices
        pred = torch.full_like(pred, _NEVER).scatter(-1, places, pred.gather(-1, places))
    if class_id is not None:
        if pred.ndim < 2:
            raise ValueError(f"{what}: class_id needs predictions of shape (B, C), found {tuple(pred.shape)}.")
        true, pred = true[..., class_id], pred[..., class_id]
        if weight is not None and weight.ndim:
            weight = weight[..., class_id if weight.shape[-1] > 1 else 0]
    dtype = widest_float(pred.device)
    each = torch.ones_like(pred, dtype=dtype)
    if weight is not None:
        each = each * weight
    if label_weights is not None:
        each = each * label_weights.to(each)
    if not by_label:
        true, pred, each = true.reshape(-1), pred.reshape(-1), each.reshape(-1)
    yes = true != 0
    positive, negative = torch.where(yes, each, 0.0), torch.where(yes, 0.0, each)
    if evenly:
        last = len(thresholds) - 1
        place = (pred.nan_to_num(0.0).clamp(0.0, 1.0) * last).ceil().long()  # how many thresholds lie below
        if thresholds[0] < 0:
            place = place.clamp(min=1)
        zeros = torch.zeros(len(thresholds) + 1, *pred.shape[1:], dtype=dtype, device=pred.device)
        tp = _above(zeros.scatter_add(0, place, positive))
        fp = _above(zeros.scatter_add(0, place, negative))
    elif len(thresholds) == 1:
        said = pred > thresholds[0]
        tp = torch.where(said, positive, 0.0).sum(0, keepdim=True)
        fp = torch.where(said, negative, 0.0).sum(0, keepdim=True)
    else:
        limits = torch.tensor(thresholds, dtype=pred.dtype, device=pred.device)
        said_each = (pred.unsqueeze(-1) > limits).to(dtype)  # (N, T) or (N, L, T)
        tp, fp = (torch.einsum("n...t,n...->t...", said_each, one) for one in (positive, negative))
    return dict(zip(COUNTS, (tp, fp, negative.sum(0) - fp, positive.sum(0) - tp), strict=True))


def _above(at: Tensor) -> Tensor:
    """From sums by the number of thresholds below, (T + 1, ...), the sums above each threshold, (T, ...)."""
    return at[1:].flip(0).cumsum(0).flip(0)


def require_thresholds(thresholds: Any, default: float) -> list[float]:
    """A list of thresholds in [0, 1] from a number, a list or None, else a ValueError."""
    if thresholds is None:
        return [default]
    found = list(thresholds) if isinstance(thresholds, (list, tuple, np.ndarray)) else [thresholds]
    if not found:
        raise ValueError("Expected at least one threshold, found none.")
    return [arguments.number("thresholds", value, 0, 1, ends="[]") for value in found]


class _AtThresholds(Metric):
    """Some of the four counts, for each threshold; a subclass says which, and what a result makes of them."""

    counts: tuple[str, ...]
    _default = 0.5
    top_k: int | None = None
    class_id: int | None = None

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None):
        super().__init__(dtype, name)
        self.thresholds = require_thresholds(thresholds, self._default)
        self.init_thresholds = thresholds if thresholds is None or np.isscalar(thresholds) else self.thresholds
        self._even = even(self.thresholds)

    def init_variables(self, device: torch.device | str | None = None) -> Variables:
        """For each of the counts one row, (T,), float64 zeros."""
        shape, dtype = (len(self.thresholds),), widest_float(device)
        return {name: torch.zeros(shape, dtype=dtype, device=device) for name in self.counts}

    def update(self, variables: Variables, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Variables:
        """New counts after one batch."""
        new = confusion(
            y_true, y_pred, sample_weight, self.thresholds, self._even, self.name, self.top_k, self.class_id
        )
        return {name: value + new[name] for name, value in variables.items()}

    def compute(self, variables: Variables) -> Tensor:
        """One number, or one per threshold where several were given."""
        found = self._at_each(variables).to(self._dtype)
        return found[0] if len(self.thresholds) == 1 else found

    def _at_each(self, variables: Variables) -> Tensor:
        """The result for each threshold, (T,): the count itself, of a metric with one."""
        return variables[self.counts[0]]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {**super().get_config(), "thresholds": self.init_thresholds}


@family.entry()
class TruePositives(_AtThresholds):
    """How many yes were said to be yes, or the sum of their weights.

    Args:
        thresholds: a number or a list in [0, 1]; a prediction above it is a yes. 0.5 by default.
        name: "true_positives" by default, made unique.
        dtype: of the result; `floatx()` by default.

    Targets 0 or 1; ValueError unless they are shaped like the predictions. One number, or one for each of a list of
    thresholds. After Keras.

    >>> TruePositives()([0, 1, 1, 1], [1.0, 0.0, 1.0, 1.0])
    tensor(2.)
    """

    counts = ("true_positives",)
    direction = "max"


@family.entry()
class FalsePositives(_AtThresholds):
    """How many no were said to be yes, or the sum of their weights.

    Args:
        thresholds: a number or a list in [0, 1]; a prediction above it is a yes. 0.5 by default.
        name: "false_positives" by default, made unique.
        dtype: of the result; `floatx()` by default.

    Targets 0 or 1; ValueError unless they are shaped like the predictions. One number, or one for each of a list of
    thresholds. After Keras.

    >>> FalsePositives()([0, 1, 0, 0], [0.0, 0.0, 1.0, 1.0])
    tensor(2.)
    """

    counts = ("false_positives",)
    direction = "min"


@family.entry()
class TrueNegatives(_AtThresholds):
    """How many no were said to be no, or the sum of their weights.

    Args:
        thresholds: a number or a list in [0, 1]; a prediction above it is a yes. 0.5 by default.
        name: "true_negatives" by default, made unique.
        dtype: of the result; `floatx()` by default.

    Targets 0 or 1; ValueError unless they are shaped like the predictions. One number, or one for each of a list of
    thresholds. After Keras.

    >>> TrueNegatives()([0, 1, 0, 0], [1.0, 1.0, 0.0, 0.0])
    tensor(2.)
    """

    counts = ("true_negatives",)
    direction = "max"


@family.entry()
class FalseNegatives(_AtThresholds):
    """How many yes were said to be no, or the sum of their weights.

    Args:
        thresholds: a number or a list in [0, 1]; a prediction above it is a yes. 0.5 by default.
        name: "false_negatives" by default, made unique.
        dtype: of the result; `floatx()` by default.

    Targets 0 or 1; ValueError unless they are shaped like the predictions. One number, or one for each of a list of
    thresholds. After Keras.

    >>> FalseNegatives()([0, 1, 1, 1], [0.0, 1.0, 0.0, 0.0])
    tensor(2.)
    """

    counts = ("false_negatives",)
    direction = "min"


class _Share(_AtThresholds):
    """true_positives / (true_positives + the other count); the common part of precision and recall."""

    direction = "max"

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        self._default = 0.5 if top_k is None else _NEVER
        super().__init__(thresholds, name, dtype)
        self.top_k = None if top_k is None else arguments.positive("top_k", top_k)
        self.class_id = None if class_id is None else arguments.whole("class_id", class_id)

    def _at_each(self, variables: Variables) -> Tensor:
        right, wrong = (variables[name] for name in self.counts)
        return divide_or_zero(right, right + wrong)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {**super().get_config(), "top_k": self.top_k, "class_id": self.class_id}


@family.entry()
class Precision(_Share):
    """true positives / (true positives + false positives): how many of those said to be yes are.

    Args:
        thresholds: a number or a list in [0, 1]; a prediction above it is a yes. 0.5 by default; none with `top_k`.
        top_k: only the k largest predictions of a row can be yes.
        class_id: look at this class only; predictions (B, C).
        name: "precision" by default, made unique.
        dtype: of the result; `floatx()` by default.

    Targets 0 or 1; ValueError unless they are shaped like the predictions. 0 where nothing was said to be yes. After
    Keras.

    >>> Precision()([0, 1, 1, 1], [1.0, 0.0, 1.0, 1.0])
    tensor(0.6667)
    """

    counts = ("true_positives", "false_positives")


@family.entry()
class Recall(_Share):
    """true positives / (true positives + false negatives): how many of the yes were found.

    Args:
        thresholds: a number or a list in [0, 1]; a prediction above it is a yes. 0.5 by default; none with `top_k`.
        top_k: only the k largest predictions of a row can be yes.
        class_id: look at this class only; predictions (B, C).
        name: "recall" by default, made unique.
        dtype: of the result; `floatx()` by default.

    Targets 0 or 1; ValueError unless they are shaped like the predictions. 0 where there is no yes. After Keras.

    >>> Recall()([0, 1, 1, 1], [1.0, 0.0, 1.0, 1.0])
    tensor(0.6667)
    """

    counts = ("true_positives", "false_negatives")
