"""The metrics of a model's outputs: updated by a batch, and their results by name."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch

from fanin.metrics.base import Variables
from fanin.training.outputs import Output, choose


class OutputMetrics:
    """All metrics of some outputs.

    Args:
        outputs: with their metrics.
        names: of the metrics in histories, those without sample weights first.

    Steps keep sums, one `Variables` for each metric; a metric that is not traceable keeps its own state, and has {}.
    """

    def __init__(self, outputs: list[Output], names: list[str]):
        self.outputs, self.names = outputs, names
        self.metrics: list[Any] = [metric for output in outputs for metric in output.plain]
        self.metrics += [metric for output in outputs for metric in output.weighted]

    @property
    def keeps_own_states(self) -> bool:
        """Whether there are metrics that are not traceable, which `measure_own` updates."""
        return any(not metric.traceable for metric in self.metrics)

    def new_sums(self, device: torch.device | None = None) -> list[Variables]:
        """Empty sums, on the device of the outputs; metrics that keep their own state are reset."""
        for metric in self.metrics:
            if not metric.traceable:
                metric.reset_state()
        return [metric.init_variables(device) if metric.traceable else {} for metric in self.metrics]

    def measure(self, sums: list[Variables], y: Any, outputs: Any, weight: Any) -> list[Variables]:
        """New sums after one batch; those of metrics that keep their own state stay as they are."""
        return [
            metric.update(variables, target, output, sample_weight) if metric.traceable else variables
            for (metric, target, output, sample_weight), variables in zip(
                self._counted(y, outputs, weight) if sums else [], sums, strict=True
            )
        ]

    def measure_own(self, y: Any, outputs: Any, weight: Any) -> None:
        """Update the metrics that keep their own state with one batch."""
        for metric, target, output, sample_weight in self._counted(y, outputs, weight):
            if not metric.traceable:
                metric.update_state(target, output, sample_weight)

    def update_states(self, y: Any, outputs: Any, weight: Any) -> None:
        """Update the state of all metrics with one batch, for a step that keeps no sums."""
        before = [metric.state if metric.traceable else {} for metric in self.metrics]
        with torch.no_grad():
            after = self.measure(before, y, outputs, weight)
            self.measure_own(y, outputs, weight)
        self.hand_over(after)

    def hand_over(self, sums: list[Variables]) -> None:
        """Make these sums the state of the metrics, so that their results show what steps add."""
        for metric, variables in zip(self.metrics, sums, strict=False):
            if metric.traceable:
                metric.state = variables

    def results_of(self, metric: Any, sums: list[Variables], shown: Container[str] = ()) -> dict[str, Any]:
        """The result of a metric, by name; of one that was given twice, for the first name that `shown` lacks."""
        places = [place for place, one in enumerate(self.metrics) if one is metric]
        place = next((one for one in places if self.names[one] not in shown), places[-1] if places else None)
        has_sums = len(places) > 1 and metric.traceable and bool(sums)
        value = metric.compute(sums[place]) if has_sums and place is not None else metric.result()
        name = metric.name if place is None else self.names[place]
        return value if isinstance(value, dict) else {name: value}

    def _counted(self, y: Any, outputs: Any, weight: Any) -> list[tuple[Any, Any, Any, Any]]:
        """For each metric: the metric, its targets, its output, its sample weights."""
        targets = choose(self.outputs, y, "y", needed=False)
        weights = choose(self.outputs, weight, "sample_weight", needed=False)
        rows = list(zip(self.outputs, targets, weights, strict=True))
        found = [(metric, target, one.pick(outputs), None) for one, target, _ in rows for metric in one.plain]
        return found + [(metric, target, one.pick(outputs), w) for one, target, w in rows for metric in one.weighted]
