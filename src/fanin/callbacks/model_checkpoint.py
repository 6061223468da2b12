"""The model, or its weights, in files while it trains."""

from __future__ import annotations

import os
from collections import defaultdict
from string import Formatter
from typing import Any

from fanin import arguments
from fanin.callbacks.base import Logs
from fanin.callbacks.monitor import MonitorCallback


class ModelCheckpoint(MonitorCallback):
    """Saves the model after each epoch, or after every so many batches.

    Args:
        filepath: ends in ".keras", with save_weights_only in ".weights.h5" or ".safetensors". Fields are filled in:
            "{epoch:02d}-{val_loss:.2f}.keras" with the epoch, counted from 1, and the numbers of the logs; "{batch}",
            from 1 too, if save_freq is a number. Without fields each file replaces the one before. Missing folders
            are made.
        monitor: which number says what is best, "val_loss" by default.
        verbose: 1 says so at each save.
        save_best_only: whether to save only when that number has become better. False by default.
        save_weights_only: whether to call `model.save_weights`, not `model.save`. False by default.
        mode: "min", "max" or "auto": what the metric says of itself.
        save_freq: "epoch", or a number of batches; the numbers are then those of the epoch so far.
        initial_value_threshold: with save_best_only, what the first file must already be better than.

    Files are written whole or not at all. Where save_best_only finds no such number in the logs, it warns and saves.
    The best number is kept from one `fit` to the next. Raises ValueError for another ending, bad fields, mode or
    save_freq; KeyError at the first save for a field that the logs do not have; IsADirectoryError. After Keras's
    `ModelCheckpoint`.

    >>> import fanin, tempfile, torch
    >>> model = fanin.Sequential([fanin.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = ModelCheckpoint(os.path.join(folder, "model-{epoch:02d}.keras"))
    ...     _ = model.fit(torch.ones(4, 2), torch.ones(4), epochs=2, callbacks=checkpoint, verbose=0)
    ...     print(sorted(os.listdir(folder)))
    ['model-01.keras', 'model-02.keras']
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ):
        super().__init__(monitor, mode)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = arguments.frequency("ModelCheckpoint: save_freq", save_freq)
        if self.save_freq == "epoch":
            self.idle = (ModelCheckpoint.on_train_batch_end,)
        self.best = initial_value_threshold
        self._check_path()
        self._epoch = 0
        self._batches = 0

    def _check_path(self) -> None:
        endings = (".weights.h5", ".safetensors") if self.save_weights_only else (".keras",)
        if not self.filepath.endswith(endings):
            raise ValueError(
                f"ModelCheckpoint: with save_weights_only={self.save_weights_only}, filepath must end in "
                f"{' or '.join(map(repr, endings))}, found {self.filepath!r}."
            )
        try:
            self.filepath.format_map(defaultdict(lambda: 0.5, epoch=1, batch=1))
            fields = {field for _, field, _, _ in Formatter().parse(self.filepath)}
        except (ValueError, LookupError, AttributeError) as error:
            raise ValueError(f"ModelCheckpoint: filepath {self.filepath!r} cannot be filled in: {error}.") from None
        if "batch" in fields and self.save_freq == "epoch":
            raise ValueError(f"ModelCheckpoint: filepath {self.filepath!r} names a batch, but save_freq is 'epoch'.")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Save, if it is time."""
        self._batches += 1
        if self._batches == self.save_freq:
            self._batches = 0
            self._save(self._epoch, {"batch": batch + 1, **(logs or {})})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save, unless batches are counted."""
        if self.save_freq == "epoch":
            self._save(epoch, logs or {})

    def _save(self, epoch: int, logs: Logs) -> None:
        path = self._path({"epoch": epoch + 1, **logs})
        if self.save_best_only and not self._is_best(epoch, logs):
            return
        if os.path.isdir(path):
            raise IsADirectoryError(f"ModelCheckpoint: {path!r} is a folder, expected the name of a file.")
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        save = self.model.save_weights if self.save_weights_only else self.model.save
        save(path, overwrite=True)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved {path}")

    def _is_best(self, epoch: int, logs: Logs) -> bool:
        value = self.monitored(logs)
        if value is None:
            return True
        best, better = self.best, self.is_better(value, self.best)
        if better:
            self.best = value
        if self.verbose:
            start = "" if best is None else f" from {best:.5f}"
            change = f"improved{start} to {value:.5f}" if better else f"did not improve{start}"
            print(f"Epoch {epoch + 1}: {self.monitor} {change}")
        return better

    def _path(self, numbers: dict[str, Any]) -> str:
        try:
            return self.filepath.format_map(numbers)
        except KeyError as error:
            known = ", ".join(numbers)
            raise KeyError(
                f"ModelCheckpoint: filepath {self.filepath!r} names {error}, which training does not give: {known}."
            ) from None
