"""Callbacks called one after another: what `fit`, `evaluate` and `predict` hold, and loops of your own can."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from fanin.callbacks.base import HOOKS, Callback
from fanin.callbacks.history import History
from fanin.callbacks.scheduler import SchedulerCallback
from fanin.graph.tree import as_list, leaves

_ALIASES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


class CallbackList:
    """Callbacks called one after another. It has every hook of a callback: `hooks.on_epoch_end(3, logs)`.

    Args:
        callbacks: one or more Callback objects, nested or not, and torch learning-rate schedulers, which step after
            each epoch.
        add_history: whether a `History` joins them if there is none.
        add_progbar: refused if True: `fit` shows progress itself.
        model: handed to each.
        params: likewise: epochs, steps, verbose.

    Raises TypeError for what is no callback. After Keras's `CallbackList`.

    >>> class Tell(Callback):
    ...     def on_epoch_begin(self, epoch, logs=None):
    ...         print(f"{epoch} of {self.params['epochs']}")
    >>> CallbackList([Tell()], epochs=3).on_epoch_begin(0)
    0 of 3
    """

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ):
        if add_progbar:
            raise ValueError("CallbackList: add_progbar must be False; fit, evaluate and predict show progress.")
        self.callbacks: list[Any] = []
        for value in leaves(as_list(callbacks)):
            self.callbacks += value.callbacks if isinstance(value, CallbackList) else [_as_callback(value)]
        if add_history and not any(isinstance(callback, History) for callback in self.callbacks):
            self.callbacks.append(History())
        for callback in self.callbacks:
            callback.set_params(params)
            callback.set_model(model)
        self._methods = {
            hook: [getattr(callback, hook) for callback in self.callbacks if _acts(callback, hook)]
            for hook in (*HOOKS, "teardown")
        }

    def wants(self, hook: str) -> bool:
        """Whether a callback has something to do at this hook: the numbers of a batch are worked out only then."""
        return bool(self._methods[hook])

    def call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Call one hook of every callback."""
        for method in self._methods[hook]:
            method(*args, **kwargs)

    def teardown(self) -> None:
        """Call `teardown` of every callback, the last first, each even if another fails."""
        with ExitStack() as stack:
            for method in self._methods["teardown"]:
                stack.callback(method)

    def __getattr__(self, name: str) -> Any:
        if name in HOOKS:
            return partial(self.call, name)
        raise AttributeError(f"CallbackList has no attribute {name!r}.")


def _as_callback(value: Any) -> Any:
    if isinstance(value, (torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)):
        return SchedulerCallback(value)
    if isinstance(value, type):
        raise TypeError(f"callbacks: expected objects, found the class {value.__name__}: write {value.__name__}(...).")
    if not hasattr(value, "on_epoch_end"):
        raise TypeError(f"callbacks: expected Callback objects or torch learning-rate schedulers, found {value!r}.")
    return value


def _acts(callback: Any, hook: str) -> bool:
    """Whether a callback has a hook of its own, in its class or set on the object, that is not idle."""
    if hook in _ALIASES and _acts(callback, _ALIASES[hook]):
        return True
    method = getattr(callback, hook, None)
    function: Callable[..., Any] | None = getattr(method, "__func__", method)
    return function not in (None, getattr(Callback, hook), *getattr(callback, "idle", ()))
