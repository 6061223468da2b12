"""The hooks by which a subclass changes what `fit`, `evaluate` and `predict` do with one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

from fanin.errors import NotYetError
from fanin.graph.tree import as_list, leaves, tree_map
from fanin.metrics import Mean, Metric
from fanin.models.graphed import Graphed
from fanin.training.compiled import Compiled
from fanin.training.data import Batch
from fanin.training.step import sum_of_losses

Function = TypeVar("Function", bound=Callable[..., Any])


def _default(method: Function) -> Function:
    """Mark a hook that nobody has overridden: the loops then take the fast way round it."""
    cast(Any, method).is_default = True
    return method


class StepHooks(Graphed):
    """The part of a model that a subclass overrides to train in its own way, while `fit` keeps the loop.

    >>> import fanin, torch
    >>> class Halved(fanin.Model):
    ...     def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
    ...         return 0.5 * super().compute_loss(x, y, y_pred, sample_weight, training)
    >>> inputs = fanin.Input((2,))
    >>> model = Halved(inputs, fanin.layers.Dense(1, kernel_initializer="ones")(inputs))
    >>> model.compile("sgd", "mse")
    >>> model.evaluate(torch.ones(4, 2), torch.zeros(4, 1), verbose=0)
    2.0
    """

    def _compiled(self) -> Compiled:
        compiled: Compiled | None = self.__dict__.get("_compiled_with")
        if compiled is None:
            raise NotYetError(f"Model {self.name!r} is not compiled: call model.compile(optimizer, loss) first.")
        return compiled

    @_default
    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on (x, y) or (x, y, sample_weight); returns the numbers to show. `fit` calls an override."""
        trainer = self._running_trainer()
        trainer.train_default(_as_batch(data))
        return dict(trainer.default_logs())

    @_default
    def test_step(self, data: Any) -> dict[str, Any]:
        """Loss and metrics on one batch; returns the numbers to show. `evaluate` calls an override."""
        trainer = self._running_trainer()
        trainer.test_default(_as_batch(data))
        return dict(trainer.default_logs())

    @_default
    def predict_step(self, data: Any) -> Any:
        """The outputs for one batch (x,). `predict` calls an override."""
        return self(data[0] if isinstance(data, tuple) else data)

    @_default
    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> torch.Tensor:
        """The scalar that training makes small: the compiled loss plus `losses`. An override replaces both."""
        compiled = self._compiled()
        if not compiled.outputs:
            compiled.bind(self, _shapes(y_pred), y)
        return sum_of_losses(compiled.compute_loss(y, y_pred, sample_weight)[0], self.losses)

    @_default
    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Count one batch in the compiled metrics, and give all results. An override is called after each step, and
        what it returns is shown; a `train_step` of one's own may call it."""
        compiled = self._compiled()
        if not compiled.outputs:
            compiled.bind(self, _shapes(y_pred), y)
        compiled.measuring.update_states(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """The results of all `metrics`, by name; a result that is a dict by its own names. What `fit` shows."""
        compiled, tracker = self._compiled(), self._tracker()
        found: dict[str, Any] = {}
        for metric in self.metrics:
            if metric is tracker:
                counted = bool(tracker.state["count"])
                found |= (not counted and compiled.losses_so_far()) or {"loss": tracker.result()}
            else:
                found |= compiled.measuring.results_of(metric, compiled.sums_so_far(), found)
        return found

    @_default
    def reset_metrics(self) -> None:
        """Let all `metrics` begin anew, and the mean losses."""
        for metric in self.metrics:
            metric.reset_state()
        compiled = self.__dict__.get("_compiled_with")
        if compiled is not None and compiled.engine is not None:
            compiled.engine.sums.forget_losses()

    @property
    def metrics(self) -> list[Any]:
        """A mean of the loss, named "loss", for a `train_step` of one's own; the compiled metrics of the last fit or
        evaluate; and metrics that were set as attributes of the model or its layers. An override chooses what `fit`
        shows."""
        compiled = self.__dict__.get("_compiled_with")
        known = [self._tracker(), *([] if compiled is None else compiled.measuring.metrics)]
        seen = {*map(id, known)}
        return [*known, *(one for one in self._held_metrics() if id(one) not in seen)]

    def _held_metrics(self) -> list[Metric]:
        """Metrics that are attributes of the model or its layers, alone or in lists; not those of models inside it."""
        kinds = (Metric, list, tuple)  # most attributes are neither: every batch on its own asks
        parts = (part for part in self.modules() if part is self or not isinstance(part, StepHooks))
        held = [one for part in parts for one in part.__dict__.values() if isinstance(one, kinds)]
        return [*{id(one): one for item in held for one in as_list(item) if isinstance(one, Metric)}.values()]

    def begin_metrics(self) -> None:
        """Before a pass whose steps keep the sums of the compiled metrics, which begin with them: reset the others."""
        for metric in self._held_metrics():
            if metric is not self._tracker() or bool(metric.state["count"]):
                metric.reset_state()

    def _tracker(self) -> Metric:
        """The mean of the loss."""
        tracker: Metric | None = self.__dict__.get("_loss_tracker")
        if tracker is None:
            tracker = self.__dict__["_loss_tracker"] = Mean(name="loss")
        return tracker

    def _running_trainer(self) -> Any:
        trainer = self.__dict__.get("_trainer")
        if trainer is None:
            raise RuntimeError(f"Model {self.name!r}: this step runs inside fit, evaluate or train_on_batch.")
        return trainer


def _as_batch(data: Any) -> Batch:
    parts = data if isinstance(data, tuple) else (data,)
    x, y, weight = (*parts, None, None)[:3]
    return Batch(x, y, weight, next(leaves(x)).shape[0])


def _shapes(outputs: Any) -> Any:
    return tree_map(lambda leaf: (None, *leaf.shape[1:]), outputs)
