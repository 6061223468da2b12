"""Metrics that others wrote, with torchmetrics's methods: `update(preds, target)`, `compute()`, `reset()`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin.losses.base import same_rank, to_tensor
from fanin.metrics.base import Metric, Variables, as_pair
from fanin.registry import snake_case


def is_foreign(obj: Any) -> bool:
    """Whether an object, or a class, has torchmetrics's three methods and is no `Metric`."""
    if isinstance(obj, (Metric, str)) or (isinstance(obj, type) and issubclass(obj, Metric)):
        return False
    return all(callable(getattr(obj, name, None)) for name in ("update", "compute", "reset"))


class TorchMetric(Metric):
    """A torchmetrics metric, run outside the compiled step.

    Args:
        metric: such as `torchmetrics.F1Score(task="multiclass", num_classes=10)`. It keeps its own state.
        name: its class's by default, in snake case.

    Targets (B,) and (B, 1) are made to fit; classification metrics get class ids as int64. `sample_weight` is a
    ValueError: these metrics have no place for it. `direction` follows `higher_is_better`. Not saved in files.
    """

    traceable = False

    def __init__(self, metric: Any, name: str | None = None):
        super().__init__(None, name or snake_case(type(metric).__name__))
        self.metric = metric
        better = getattr(metric, "higher_is_better", None)
        self.direction = None if better is None else "max" if better else "min"
        module = type(metric).__module__
        self._ids = module.startswith("torchmetrics.") and "classification" in module

    def init_variables(self, device: torch.device | str | None = None) -> Variables:
        """Nothing: the metric keeps its own."""
        return {}

    @torch.no_grad()
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count one batch."""
        if sample_weight is not None:
            raise ValueError(f"{self.name}: a torchmetrics metric cannot weigh samples; leave it out of the weighted.")
        true, pred = as_pair(y_true, y_pred)
        true, pred = same_rank(true, pred)
        if true.ndim == pred.ndim and true.shape[1:] == (1,) and pred.shape[1:] != (1,):
            true = true.squeeze(-1)
        if self._ids and true.is_floating_point():
            true = true.long()
        if hasattr(self.metric, "to"):
            self.metric.to(pred.device)
        self.metric.update(pred, true)

    def result(self) -> Tensor:
        """What the metric computes."""
        return to_tensor(self.metric.compute())

    def reset_state(self) -> None:
        """Forget all that was counted."""
        self.metric.reset()

    def get_config(self) -> dict[str, Any]:
        """A ValueError: files hold this package's metrics only."""
        raise ValueError(f"A file cannot hold the metric {type(self.metric).__name__}; compile again after loading.")
