"""What a callback is: hooks at the edges of training, of an epoch, of a batch, of an evaluation and of predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Logs = dict[str, Any]


class Callback:
    """The base of callbacks; write the hooks you need. `self.model` is the model, `self.params` say epochs and steps.

    Hooks get `logs`, a dict of numbers such as {"loss": 0.3, "val_loss": 0.4}; what one callback adds to those of an
    epoch, the next ones and `History` see. `self.model.stop_training = True` ends training: after the batch where it
    is set in one, then after that epoch's validation. Batches and epochs are counted from 0. After Keras's `Callback`.

    `on_train_batch_end` and `on_test_batch_end` make each step wait for its numbers; leave them out for speed.

    Attributes:
        idle: hooks of a class that have nothing to do for this object, as functions; training does not wait for them.

    >>> import fanin, torch
    >>> class Tell(Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         print(epoch, sorted(logs))
    >>> model = fanin.Sequential([fanin.layers.Dense(1)])
    >>> model.compile("sgd", "mse", metrics=["mae"])
    >>> _ = model.fit(torch.ones(4, 2), torch.ones(4), epochs=2, callbacks=Tell(), verbose=0)
    0 ['loss', 'mae']
    1 ['loss', 'mae']
    """

    idle: tuple[Callable[..., None], ...] = ()

    def __init__(self) -> None:
        self.model: Any = None
        self.params: dict[str, Any] = {}

    def set_model(self, model: Any) -> None:
        """Called first, with the model."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called first, with {"epochs", "steps", "verbose"}."""
        self.params = params

    # --- training ------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch; not after an error."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before each epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After each epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before each step."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After each step, with the numbers of the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """An older name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """An older name of `on_train_batch_end`."""

    # --- evaluation, also the validation of an epoch -------------------------------------------------------------

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before an evaluation."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After an evaluation, with its numbers."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before each batch of an evaluation."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After each batch of an evaluation, with the numbers so far."""

    # --- predictions ---------------------------------------------------------------------------------------------

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Before predictions."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """After predictions."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before each batch of predictions."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After each batch of predictions; `logs["outputs"]` are what the model returned."""

    # --- the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """After everything, also after an error or Ctrl-C: close files, put back what was borrowed."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
