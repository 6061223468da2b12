"""A pass inside a pass, as of a callback of `fit` that evaluates: the outer one goes on with its own numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from fanin.training.compiled import Compiled

Function = TypeVar("Function", bound=Callable[..., Any])


class _Running(threading.local):
    """What the models of the passes of this thread were compiled with, the innermost last."""

    def __init__(self) -> None:
        self.passes: list[Compiled] = []


_running = _Running()


def a_pass(function: Function) -> Function:
    """Mark a function (model, compiled, ...) as a pass over data. Inside another of the same model, in the same thread,
    it leaves losses, metrics and modes as they were."""

    @wraps(function)
    def run(model: Any, compiled: Compiled, *args: Any, **kwargs: Any) -> Any:
        outer = _Outer(model, compiled) if any(one is compiled for one in _running.passes) else None
        _running.passes.append(compiled)
        try:
            return function(model, compiled, *args, **kwargs)
        finally:
            _running.passes.pop()
            if outer is not None:
                outer.put_back()

    return cast(Function, run)


class _Outer:
    """What a pass needs to go on: its losses and metrics, what they counted, and the modes of the layers.

    Attributes are put back, and what is in tensors, lists and dicts: programs write there.
    """

    def __init__(self, model: Any, compiled: Compiled):
        self._compiled, self._settled = compiled, compiled.settled()
        self._modes = [(module, module.training) for module in model.modules()]
        self._sums = None if compiled.engine is None else compiled.engine.sums
        self._rows = 0 if self._sums is None else self._sums.rows
        metrics = {id(one): one for one in (*compiled.measuring.metrics, *model._held_metrics())}
        objects = [part for one in metrics.values() for part in (one, *_parts(getattr(one, "metric", None)))]
        self._attributes = [(vars(one), dict(vars(one))) for one in objects]
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, int, Tensor]] = []
        self._keep([before for _, before in self._attributes])
        self._counted = [] if self._sums is None else [(one, one.clone()) for one in self._sums.tensors()]

    def _keep(self, value: Any) -> None:
        if isinstance(value, Tensor) and not value.is_inference():  # those are made anew, not changed
            self._tensors.append((value, value._version, value.detach().clone()))
        elif isinstance(value, (list, dict)):
            self._containers.append((value, value.copy()))
            for item in value.values() if isinstance(value, dict) else value:
                self._keep(item)

    def put_back(self) -> None:
        """Everything is as it was."""
        vars(self._compiled).update(self._settled)
        for container, inside in (*self._containers, *self._attributes):
            container.clear()
            container.update(inside) if isinstance(container, dict) else container.extend(inside)
        with torch.no_grad():
            for tensor, version, value in self._tensors:
                if tensor._version != version:
                    tensor.copy_(value)
            for tensor, value in self._counted:  # programs change these and leave the version
                tensor.copy_(value)
        if self._sums is not None:
            self._sums.rows = self._rows
        for module, training in self._modes:
            module.training = training


def _parts(metric: Any) -> list[Any]:
    """One of torchmetrics' metrics with those that it is made of."""
    if isinstance(metric, nn.Module):
        return [*metric.modules()]
    return [metric] if hasattr(metric, "__dict__") else []
