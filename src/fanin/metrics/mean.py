"""Means: of values, and of any function of targets and predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fanin.dtypes import widest_float
from fanin.losses.base import Loss, divide_or_zero, mask_for, to_tensor
from fanin.masks import both
from fanin.metrics.base import Metric, Variables, as_pair, family, weighted_total
from fanin.registry import deserialize, serialize


@family.entry()
class Mean(Metric):
    """sum(w v) / sum(w) over all rows seen; 0 before the first.

    Args:
        name: "mean" by default.
        dtype: of the result; `floatx()` by default.

    `update_state(values, sample_weight=None)`: values (B, ...) or one number; weights per row or value. After Keras.

    >>> mean = Mean()
    >>> mean.update_state([1.0, 3.0], sample_weight=[1.0, 3.0])
    >>> mean.result()
    tensor(2.5000)
    """

    def __init__(self, name: str | None = "mean", dtype: Any = None):
        super().__init__(dtype, name)

    def init_variables(self, device: torch.device | str | None = None) -> Variables:
        """total and count, float64 zeros."""
        dtype = widest_float(device)
        return {name: torch.zeros((), dtype=dtype, device=device) for name in ("total", "count")}

    def update(self, variables: Variables, values: Any, sample_weight: Any = None) -> Variables:  # type: ignore[override]
        """New variables after `values` (B, ...), or one number."""
        return self.add(variables, to_tensor(values), sample_weight, None, 1)

    def add(self, variables: Variables, values: Tensor, weight: Any, mask: Tensor | None, rows: int) -> Variables:
        """New variables after weighted and masked values; see `weighted_total`."""
        total, count = weighted_total(values, weight, mask, self.name, rows)
        return {"total": variables["total"] + total, "count": variables["count"] + count}

    def compute(self, variables: Variables) -> Tensor:
        """total / count, or 0."""
        return divide_or_zero(variables["total"], variables["count"]).to(self._dtype)


@family.entry()
class MeanMetricWrapper(Mean):
    """The mean of a function of (y_true, y_pred).

    Args:
        fn: gives values (B,) or (B, ...), numbers or booleans; or one number for a batch, which then counts as often
            as the batch has rows; or a `Loss`, whose values before reduction are taken.
        name: in Keras "mean_metric_wrapper"; `metrics.get` gives the function's own.
        dtype: of the result; `floatx()` by default.
        **kwargs: passed to `fn` at every call.

    Saved when `fn` is registered (`register_keras_serializable`). After Keras.

    >>> gap = MeanMetricWrapper(lambda y_true, y_pred: (y_true - y_pred).abs(), name="gap")
    >>> gap([1.0, 2.0], [1.0, 4.0])
    tensor(1.)
    """

    def __init__(self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **kwargs: Any):
        super().__init__(name, dtype)
        self.fn = fn
        self.kwargs = kwargs
        if isinstance(fn, Loss):
            self.direction = "min"

    def values(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor | None]:
        """The values to be averaged, and which of them count (None: all)."""
        if isinstance(self.fn, Loss):
            true, pred = self.fn.prepare(y_true, y_pred)
            return self.fn.call(true, pred), self.fn.mask(true, pred)
        return to_tensor(self.fn(y_true, y_pred, **self.kwargs), y_pred.device), None

    def update(  # type: ignore[override]
        self, variables: Variables, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Variables:
        """New variables after one batch of targets and predictions."""
        true, pred = as_pair(y_true, y_pred)
        values, mask = self.values(true, pred)
        mask = both(mask, mask_for(values, y_pred)) if values.ndim else mask
        return self.add(variables, values, sample_weight, mask, pred.shape[0] if pred.ndim else 1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {**super().get_config(), "fn": serialize(self.fn), **serialize(self.kwargs)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """The metric that `get_config` described."""
        return cls(**({**config, "fn": deserialize(config["fn"])} if "fn" in config else config))


class FixedMean(MeanMetricWrapper):
    """The mean of a function that a subclass settles: its config holds the arguments of the class, not the function."""

    def get_config(self) -> dict[str, Any]:
        """Name and dtype; a class with further arguments adds them."""
        return Metric.get_config(self)
