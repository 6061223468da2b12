"""The area under a curve of rates at many thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fanin import arguments, config
from fanin.dtypes import widest_float
from fanin.errors import nearest
from fanin.losses.base import divide_or_zero
from fanin.metrics.base import Metric, Variables, as_pair, family
from fanin.metrics.confusion import COUNTS, confusion, even, require_thresholds
from fanin.registry import deserialize

_CURVES = {"ROC": "ROC", "PR": "PR", "PRGAIN": "PRGAIN"}
_METHODS = {"interpolation": "interpolation", "minoring": "minoring", "majoring": "majoring"}


def _choice(what: str, value: Any, known: dict[str, str]) -> str:
    for name in known:
        if isinstance(value, str) and value.lower() == name.lower():
            return name
    raise ValueError(f"Unknown {what} {value!r}.{nearest(value, known)}")


@family.entry()
class AUC(Metric):
    """The area under the ROC, precision-recall or precision-recall-gain curve, from counts at T thresholds.

    Args:
        num_thresholds: T, 200 by default; the thresholds divide [0, 1] evenly.
        curve: "ROC" (default), "PR" or "PRGAIN".
        summation_method: "interpolation" (default: trapezes; for "PR" the interpolation of Davis and Goadrich),
            "minoring" or "majoring".
        name: "auc" by default, made unique.
        dtype: of the result; `floatx()` by default.
        thresholds: own thresholds in [0, 1] instead of `num_thresholds`; 0 and 1 are added.
        multi_label: whether predictions are (B, L), one column for each of L labels: the area is then the mean of
            those of the labels. Else all values count alike.
        num_labels: L, with `multi_label`. Without it the first batch tells, and steps of `fit` are a little slower.
        label_weights: one number of 0 or more for each label: for the mean, or, without `multi_label`, for counting.
        from_logits: whether predictions are logits, to be put through a sigmoid.

    Targets 0 or 1. Raises ValueError unless they are shaped like the predictions, (B,) against (B, 1) allowed, and for
    numbers of labels that differ. After Keras; an approximation, exact when no two predictions of different class share
    a bin.

    >>> AUC(num_thresholds=3)([0, 0, 1, 1], [0.0, 0.5, 0.3, 0.9])
    tensor(0.7500)
    """

    direction = "max"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ):
        super().__init__(dtype, name)
        self.multi_label = arguments.flag("multi_label", multi_label)
        self.num_labels = None if num_labels is None else arguments.positive("num_labels", num_labels)
        if self.num_labels is not None and not self.multi_label:
            raise ValueError(f"num_labels goes with multi_label=True, found {num_labels!r} without.")
        given = [] if label_weights is None else torch.as_tensor(label_weights).tolist()
        self.label_weights = [arguments.number("label_weights", one) for one in given] or None
        self.traceable = not self.multi_label or self.num_labels is not None  # else a batch says how large counts are
        self.curve = _choice("curve", curve, _CURVES)
        self.summation_method = _choice("summation_method", summation_method, _METHODS)
        self.from_logits = from_logits
        self._given = thresholds is not None
        if thresholds is not None:
            inner = sorted(require_thresholds(thresholds, 0.5))
            self._even = even([0.0, *inner, 1.0])
        else:
            num_thresholds = arguments.whole("num_thresholds", num_thresholds, 2)
            inner = [(i + 1) / (num_thresholds - 1) for i in range(num_thresholds - 2)]
            self._even = True
        self.thresholds = [-config.epsilon(), *inner, 1.0 + config.epsilon()]
        self.num_thresholds = len(self.thresholds)

    def init_variables(self, device: torch.device | str | None = None) -> Variables:
        """Four rows of counts, (T,), float64 zeros; of several labels (T, L), (T, 1) until the first batch."""
        shape = (self.num_thresholds, self.num_labels or 1) if self.multi_label else (self.num_thresholds,)
        return {name: torch.zeros(shape, dtype=widest_float(device), device=device) for name in COUNTS}

    def update(self, variables: Variables, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Variables:
        """New counts after one batch."""
        true, pred = as_pair(y_true, y_pred)
        if self.from_logits:
            pred = pred.sigmoid()
        weights = None if self.label_weights is None else torch.tensor(self.label_weights, device=pred.device)
        self._check_labels(tuple(pred.shape), variables)
        new = confusion(
            true,
            pred,
            sample_weight,
            self.thresholds,
            self._even,
            self.name,
            label_weights=None if self.multi_label else weights,
            by_label=self.multi_label,
        )
        return {name: value + new[name] for name, value in variables.items()}

    def _check_labels(self, shape: tuple[int, ...], variables: Variables) -> None:
        """ValueError for predictions whose number of labels is another than that of the weights, or of the counts."""
        if self.multi_label and len(shape) != 2:
            raise ValueError(f"{self.name} with multi_label takes predictions of shape (B, L), found {shape}.")
        if self.label_weights is not None and (not shape or shape[-1] != len(self.label_weights)):
            raise ValueError(f"{self.name} has {len(self.label_weights)} label_weights, found predictions {shape}.")
        counted = variables[COUNTS[0]].shape[1] if self.multi_label else 1
        known = self.num_labels or (counted if counted > 1 else None)
        if self.multi_label and known is not None and shape[1] != known:
            raise ValueError(f"{self.name} counts {known} labels, found predictions of shape {shape}.")

    def compute(self, variables: Variables) -> Tensor:
        """The area, one number."""
        areas = self._areas(*(variables[name] for name in COUNTS))
        if self.multi_label and self.label_weights is not None and areas.shape == (len(self.label_weights),):
            weights = torch.tensor(self.label_weights, dtype=areas.dtype, device=areas.device)
            areas = divide_or_zero((areas * weights).sum(), weights.sum())
        return areas.mean().to(self._dtype)

    def _areas(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> Tensor:
        """The area, (), or that of each label, (L,)."""
        if self.curve == "PR" and self.summation_method == "interpolation":
            return _interpolated_pr(tp, fp, fn)
        x, y = _points(self.curve, tp, fp, tn, fn)
        if self.summation_method == "interpolation":
            heights = (y[:-1] + y[1:]) / 2
        elif self.summation_method == "minoring":
            heights = torch.minimum(y[:-1], y[1:])
        else:
            heights = torch.maximum(y[:-1], y[1:])
        return ((x[:-1] - x[1:]) * heights).sum(0)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> AUC:
        """The metric that `get_config` described; Keras writes `label_weights` as a tensor."""
        return cls(**{**config, "label_weights": deserialize(config.get("label_weights"))})

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        own: dict[str, Any] = {
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": self.label_weights,
            "from_logits": self.from_logits,
        }
        if self._given:
            own["thresholds"] = self.thresholds[1:-1]
        return {**super().get_config(), **own}


def _points(curve: str, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor) -> tuple[Tensor, Tensor]:
    """The points of the curve, x and y, (T, ...) each, from the highest x to the lowest."""
    recall = divide_or_zero(tp, tp + fn)
    if curve == "ROC":
        return divide_or_zero(fp, fp + tn), recall
    if curve == "PR":
        return recall, divide_or_zero(tp, tp + fp)
    odds = divide_or_zero(tp + fn, tn + fp)  # of a yes in the data
    none = tp == 0
    recall_gain = torch.where(none, 0.0, 1.0 - odds * divide_or_zero(fn, tp)).clamp(min=0.0)
    return recall_gain, torch.where(none, 1.0, 1.0 - odds * divide_or_zero(fp, tp))


def _interpolated_pr(tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
    """The area under precision over recall, with counts, not rates, interpolated between thresholds.

    Between two points, tp = slope p + c with p = tp + fp; the integral of tp / p over the step in tp is
    slope (d tp + c log(p0 / p1)), and recall divides it by tp + fn.
    """
    said = tp + fp
    step = tp[:-1] - tp[1:]
    slope = divide_or_zero(step, (said[:-1] - said[1:]).clamp(min=0.0))
    offset = tp[1:] - slope * said[1:]
    both = (said[:-1] > 0) & (said[1:] > 0)
    ratio = torch.where(both, divide_or_zero(said[:-1], said[1:].clamp(min=0.0)), 1.0)
    return divide_or_zero(slope * (step + offset * ratio.log()), (tp[1:] + fn[1:]).clamp(min=0.0)).sum(0)
