"""A callback made of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fanin.callbacks.base import HOOKS, Callback
from fanin.errors import nearest


class LambdaCallback(Callback):
    """Calls functions at the hooks whose names they are given by.

    Args:
        on_epoch_begin, on_epoch_end: functions of (epoch, logs).
        on_train_begin, on_train_end: functions of (logs).
        on_train_batch_begin, on_train_batch_end: functions of (batch, logs).
        kwargs: any other hook of `Callback`, as on_test_end=function.

    Raises TypeError for a name that is no hook, and for what cannot be called. After Keras's `LambdaCallback`.

    >>> import fanin, torch
    >>> model = fanin.Sequential([fanin.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> tell = LambdaCallback(on_epoch_begin=lambda epoch, logs: print("epoch", epoch))
    >>> _ = model.fit(torch.ones(4, 2), torch.ones(4), epochs=2, callbacks=tell, verbose=0)
    epoch 0
    epoch 1
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **kwargs: Callable[..., Any] | None,
    ):
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        for hook, function in given.items():
            if hook not in HOOKS:
                raise TypeError(f"LambdaCallback: {hook!r} is no hook of a callback.{nearest(hook, HOOKS)}")
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"LambdaCallback: {hook} must be a function, found {function!r}.")
            setattr(self, hook, function)
