"""Nested passes over data: when a callback of `fit` evaluates the model, the sums of `fit` are restored afterwards."""

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
    """The passes that run in this thread, by their `Compiled`, the innermost last."""

    def __init__(self) -> None:
        self.passes: list[Compiled] = []


_running = _Running()


def nestable(function: Function) -> Function:
    """A decorator of passes: functions of (model, compiled, ...).

    A pass inside another of the same model, in the same thread, restores the outer one's losses, metrics and modes.
    """

    @wraps(function)
    def run(model: Any, compiled: Compiled, *args: Any, **kwargs: Any) -> Any:
        outer = _OuterPass(model, compiled) if any(one is compiled for one in _running.passes) else None
        _running.passes.append(compiled)
        try:
            return function(model, compiled, *args, **kwargs)
        finally:
            _running.passes.pop()
            if outer is not None:
                outer.restore()

    return cast(Function, run)


class _OuterPass:
    """A copy of what a pass needs to go on: the state of its losses and metrics, and the modes of the layers.

    `restore` restores attributes, and the contents of tensors, lists and dicts, which programs mutate.
    """

    def __init__(self, model: Any, compiled: Compiled):
        self._compiled, self._bound = compiled, compiled.bound_state()
        self._modes = [(module, module.training) for module in model.modules()]
        self._sums = None if compiled.engine is None else compiled.engine.sums
        self._rows = 0 if self._sums is None else self._sums.rows
        metrics = {id(one): one for one in (*compiled.measuring.metrics, *model._held_metrics())}
        objects = [part for one in metrics.values() for part in (one, *_modules_of(getattr(one, "metric", None)))]
        self._attributes = [(vars(one), dict(vars(one))) for one in objects]
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, int, Tensor]] = []
        self._save([before for _, before in self._attributes])
        self._counted = [] if self._sums is None else [(one, one.clone()) for one in self._sums.tensors()]

    def _save(self, value: Any) -> None:
        if isinstance(value, Tensor) and not value.is_inference():  # inference tensors are replaced, not mutated
            self._tensors.append((value, value._version, value.detach().clone()))
        elif isinstance(value, (list, dict)):
            self._containers.append((value, value.copy()))
            for item in value.values() if isinstance(value, dict) else value:
                self._save(item)

    def restore(self) -> None:
        """Restore everything."""
        vars(self._compiled).update(self._bound)
        for container, inside in (*self._containers, *self._attributes):
            container.clear()
            container.update(inside) if isinstance(container, dict) else container.extend(inside)
        with torch.no_grad():
            for tensor, version, value in self._tensors:
                if tensor._version != version:
                    tensor.copy_(value)
            for tensor, value in self._counted:  # programs mutate these without counting up the version
                tensor.copy_(value)
        if self._sums is not None:
            self._sums.rows = self._rows
        for module, training in self._modes:
            module.training = training


def _modules_of(metric: Any) -> list[Any]:
    """The modules of a torchmetrics metric; else the metric itself, if it has attributes."""
    if isinstance(metric, nn.Module):
        return [*metric.modules()]
    return [metric] if hasattr(metric, "__dict__") else []
