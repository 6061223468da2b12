"""R2: the share of the targets' variance that predictions explain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.dtypes import widest_float
from fanin.losses.base import align_weights, divide_or_zero, mask_for, same_shape
from fanin.metrics.base import Metric, Variables, as_pair, family
from fanin.metrics.regression import columns

AGGREGATIONS = (None, "uniform_average", "variance_weighted_average")
_CONSTANT = 1e-14  # of the sum of squares: what float64 sums leave of the variance of targets that are all alike


@family.entry()
class R2Score(Metric):
    """1 - sum(w (y_true - y_pred)^2) / sum(w (y_true - mean)^2) over all rows, with mean = sum(w y_true) / sum(w).

    Args:
        class_aggregation: how the scores of U outputs become one: "uniform_average" (default), their mean;
            "variance_weighted_average", weighted by the variance of their targets; None, a result of shape (U,).
        num_regressors: k, 0 by default. Above 0 the adjusted score 1 - (1 - R2) (n - 1) / (n - k - 1), where n, as in
            Keras, is the number of values, B U, whatever their weights; not adjusted while n <= k + 1.
        name: "r2_score" by default.
        dtype: of the result; `floatx()` by default.

    Shapes (B, U), equal, or (B,) against (B, 1); else a ValueError. Where all targets of an output are alike, the score
    is 1 for exact predictions and 0 for others, as in scikit-learn. After Keras, where the former is NaN.

    >>> R2Score()([[1.0], [4.0], [3.0]], [[2.0], [4.0], [4.0]])
    tensor(0.5714)
    """

    direction = "max"
    traceable = False  # the sums get their shape, (U,), with the first batch

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = "r2_score",
        dtype: Any = None,
    ):
        super().__init__(dtype, name)
        if class_aggregation not in AGGREGATIONS:
            shown = ", ".join(repr(a) for a in AGGREGATIONS)
            raise ValueError(f"Unknown class_aggregation {class_aggregation!r}; expected one of {shown}.")
        self.class_aggregation = class_aggregation
        self.num_regressors = arguments.whole("num_regressors", num_regressors)

    def init_variables(self, device: torch.device | str | None = None) -> Variables:
        """Sums as float64 zeros, each () until the first batch makes all but the number of values (U,)."""
        names = ("num_samples", "squared_sum", "sum", "residual", "count")
        return {name: torch.zeros((), dtype=widest_float(device), device=device) for name in names}

    def update(self, variables: Variables, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Variables:
        """New sums after one batch; another number of outputs than before is a ValueError."""
        true, pred = columns(*same_shape(*as_pair(y_true, y_pred), self.name))
        if pred.ndim != 2:
            raise ValueError(f"{self.name} takes predictions of shape (B, U), found {tuple(pred.shape)}.")
        if variables["count"].ndim and variables["count"].shape != pred.shape[1:]:
            raise ValueError(f"{self.name} counted {len(variables['count'])} outputs, and now {pred.shape[1]}.")
        dtype = widest_float(pred.device)
        true, pred = true.to(dtype), pred.to(dtype)
        weight = torch.ones_like(pred)
        if sample_weight is not None:
            weight = weight * align_weights(pred, sample_weight, self.name)
        counted = torch.ones_like(pred)
        mask = mask_for(pred, y_pred)
        if mask is not None:
            true, pred, weight, counted = (torch.where(mask, part, 0.0) for part in (true, pred, weight, counted))
        found = {
            "num_samples": counted.sum(),
            "squared_sum": (weight * true.square()).sum(0),
            "sum": (weight * true).sum(0),
            "residual": (weight * (true - pred).square()).sum(0),
            "count": weight.sum(0),
        }
        return {name: value + found[name] for name, value in variables.items()}

    def compute(self, variables: Variables) -> Tensor:
        """One number, or (U,) without aggregation; 0 where nothing was counted."""
        squares, residual, count = (variables[name] for name in ("squared_sum", "residual", "count"))
        spread = squares - divide_or_zero(variables["sum"].square(), count)
        alike = spread <= _CONSTANT * squares
        spread = torch.where(alike, 0.0, spread)
        exact = ((residual == 0) & (count > 0)).to(spread.dtype)
        score = torch.where(alike, exact, 1.0 - residual / torch.where(alike, 1.0, spread))
        if self.class_aggregation == "uniform_average":
            score = score.mean()
        elif self.class_aggregation is not None:
            score = divide_or_zero((spread * score).sum(), spread.sum())
        free = variables["num_samples"] - self.num_regressors - 1
        if self.num_regressors:
            adjusted = 1.0 - (1.0 - score) * (variables["num_samples"] - 1) / torch.where(free > 0, free, 1.0)
            score = torch.where(free > 0, adjusted, score)
        return score.to(self._dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        own = {"class_aggregation": self.class_aggregation, "num_regressors": self.num_regressors}
        return {**super().get_config(), **own}
