"""Evaluation, predictions and checkpoints with the moving averages of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from fanin.callbacks.base import Callback, Logs


class SwapEMAWeights(Callback):
    """While the model is evaluated or predicts, its weights are the averages that the optimizer keeps; then their own.

    Args:
        swap_on_epoch: whether they are already the averages for the callbacks after this one at the end of each epoch,
            so that a `ModelCheckpoint` saves them. False by default.

    Only trainable weights have averages. However training ends, `fit` leaves the averages in the model; an error brings
    the weights back. While swapped, a copy of the weights is held. Raises ValueError for an optimizer without
    `use_ema=True`. After Keras's `SwapEMAWeights`.

    >>> import fanin
    >>> model = fanin.Sequential([fanin.layers.Dense(1, kernel_initializer="zeros", use_bias=False)])
    >>> model.compile(fanin.optimizers.SGD(0.25, use_ema=True, ema_momentum=0.5), "mse")
    >>> x, y = torch.ones(4, 1), torch.ones(4, 1)
    >>> history = model.fit(x, y, batch_size=2, validation_data=(x, y), callbacks=SwapEMAWeights(), verbose=0)
    >>> history.history["val_loss"], model.layers[0].kernel.item()  # 0.5, then 0.75: on average 0.625
    ([0.140625], 0.625)
    """

    def __init__(self, swap_on_epoch: bool = False):
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._own: list[tuple[Tensor, Tensor]] | None = None  # weights and their own values, while they are averages

    # --- training ------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Look at the optimizer."""
        self._check_optimizer()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Train on with the weights themselves."""
        self._give_back()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Averages for the callbacks that come next."""
        if self.swap_on_epoch:
            self._swap()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """The averages stay."""
        self._own = None

    # --- evaluation and predictions ------------------------------------------------------------------------------

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Evaluate averages."""
        self._swap()

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Back to the weights."""
        self._give_back()

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Predict with averages."""
        self._swap()

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Back to the weights."""
        self._give_back()

    def teardown(self) -> None:
        """After an error: back to the weights."""
        self._give_back()

    # --- swapping ------------------------------------------------------------------------------------------------

    def _check_optimizer(self) -> None:
        optimizer = self.model.optimizer
        if not getattr(getattr(optimizer, "inner_optimizer", optimizer), "use_ema", False):
            raise ValueError(f"SwapEMAWeights needs an optimizer of fanin's with use_ema=True, found {optimizer!r}.")

    def _swap(self) -> None:
        if self._own is not None:
            return
        self._check_optimizer()
        weights = self.model.trainable_weights
        averages = [slots["average"] for slots in self.model.optimizer.slots(weights)]
        with torch.no_grad():
            self._own = [(weight, weight.detach().clone()) for weight in weights]
            for weight, average in zip(weights, averages, strict=True):
                weight.copy_(average)

    def _give_back(self) -> None:
        if self._own is None:
            return
        with torch.no_grad():
            for weight, value in self._own:
                weight.copy_(value)
        self._own = None
