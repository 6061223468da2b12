"""The end of training when the loss is lost."""

from __future__ import annotations

import math

from fanin.callbacks.base import Callback, Logs


class TerminateOnNaN(Callback):
    """Stops training at the batch, counted from 0, that makes the loss NaN or infinite, and says which.

    Args:
        raise_error: whether to raise a RuntimeError at once instead: no validation, no `on_train_end`. False by
            default.

    Each step then waits for its loss. After Keras's `TerminateOnNaN`.

    >>> import fanin, torch
    >>> model = fanin.Sequential([fanin.layers.Dense(1)])
    >>> model.compile(fanin.optimizers.SGD(1e30), "mse")
    >>> _ = model.fit(torch.ones(8, 2), torch.ones(8), batch_size=2, callbacks=TerminateOnNaN(), verbose=0)
    Batch 1: the loss is inf; training stops.
    """

    def __init__(self, raise_error: bool = False):
        super().__init__()
        self.raise_error = raise_error

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Look at the loss."""
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        message = f"Batch {batch}: the loss is {loss}; training stops."
        if self.raise_error:
            raise RuntimeError(message)
        print(message)
        self.model.stop_training = True
