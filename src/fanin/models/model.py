"""What every model can do beyond a layer: compile, fit, evaluate, predict, save. Each is a short delegation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fanin.formats import archive
from fanin.layers.layer import Layer
from fanin.models.summary import print_summary
from fanin.registry import serialize
from fanin.training import loop
from fanin.training.compiled import Compiled


class Model(Layer):
    """A layer that can be trained. In eval mode except inside `fit` and `train_on_batch`."""

    def _compiled(self) -> Compiled:
        compiled: Compiled | None = self.__dict__.get("_compiled_with")
        if compiled is None:
            raise RuntimeError(f"Model {self.name!r} is not compiled: call model.compile(optimizer, loss) first.")
        return compiled

    def compile(  # Keras's meaning, not nn.Module's
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        **kwargs: Any,
    ) -> None:
        """Say how to train.

        Args:
            optimizer: a name, a fanin optimizer, or torch.optim's: an instance, a class, or a function(parameters).
            loss: a name, a Loss, a torch.nn loss, or a callable (y_true, y_pred) -> value for each row, or a scalar.
            loss_weights: a factor for the loss.
            metrics: names, metrics (torchmetrics' too) or callables; sample weights do not touch them.
            weighted_metrics: likewise, with sample weights.
            run_eagerly: kept for Keras; the step always computes the same.

        Raises ValueError or TypeError for anything unknown; the model then stays as it was compiled before.
        """
        compiled = Compiled(optimizer, loss, loss_weights, metrics, weighted_metrics, run_eagerly, kwargs)
        self.__dict__["_compiled_with"] = compiled

    @property
    def optimizer(self) -> Any:
        """The optimizer that the model was compiled with."""
        return self._compiled().optimizer

    @property
    def loss(self) -> Any:
        """The loss that the model was compiled with, as it was given."""
        return self._compiled().given_loss

    @property
    def metrics(self) -> list[Any]:
        """The metrics of the last fit or evaluate."""
        return self._compiled().metrics

    @property
    def metrics_names(self) -> list[str]:
        """The names of what `evaluate` returns: "loss" and the metrics."""
        return ["loss", *self._compiled().metric_names]

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> Any:
        """Train, and return the `History`: `history.history["loss"]` holds one number for each epoch.

        Args:
            x: arrays or tensors (N, ...), a Dataset, a DataLoader, or a generator of (x, y) or (x, y, sample_weight).
            y: the targets, if x is arrays.
            batch_size: 32 unless given; the shorter last batch is kept.
            epochs: the number of the last epoch.
            verbose: 0 silent, 1 a bar ("auto"), 2 one line for each epoch; without a terminal, plain lines.
            callbacks: Callback objects; torch's learning-rate schedulers too, which step after each epoch.
            validation_split: the last fraction of the arrays is held out, before shuffling.
            validation_data: (x, y), (x, y, sample_weight), a DataLoader or a Dataset.
            shuffle: arrays in a new order each epoch.
            class_weight: class -> weight; a class that is missing weighs 1.
            sample_weight: one weight for each row.
            initial_epoch: where to go on.
            steps_per_epoch: batches in an epoch; needed for an endless generator.

        Raises DataError for data that would spoil the weights, naming the row: NaN, Inf, labels out of range.
        """
        return loop.fit(
            self, self._compiled(), x, y, batch_size=batch_size, epochs=epochs, verbose=verbose, callbacks=callbacks,
            validation_split=validation_split, validation_data=validation_data, shuffle=shuffle,
            class_weight=class_weight, sample_weight=sample_weight, initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch, validation_steps=validation_steps,
            validation_batch_size=validation_batch_size, validation_freq=validation_freq,
        )  # fmt: skip

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Loss, penalties included, and metrics over data: a number, a list as in `metrics_names`, or a dict."""
        logs = loop.evaluate(
            self, self._compiled(), x, y, batch_size=batch_size, verbose=verbose, sample_weight=sample_weight,
            steps=steps, callbacks=callbacks,
        )  # fmt: skip
        return _returned(logs, return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for x (N, ...), as a numpy array (N, ..., U); (0, ..., U) for no rows."""
        return loop.predict(self, x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One step on one batch; returns the loss before the update, and the metrics."""
        logs = loop.train_on_batch(self, self._compiled(), x, y, sample_weight, class_weight)
        return _returned(logs, return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss and metrics on one batch."""
        return _returned(loop.test_on_batch(self, self._compiled(), x, y, sample_weight), return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch, as a numpy array."""
        return loop.predict_on_batch(self, x)

    def summary(self, line_length: int | None = None, print_fn: Callable[[str], None] | None = None) -> None:
        """Print a table of layers, output shapes and numbers of weights."""
        print_summary(self, line_length, print_fn)

    def to_json(self, **kwargs: Any) -> str:
        """The architecture as JSON, in Keras's form; kwargs go to json.dumps."""
        return json.dumps(serialize(self), **kwargs)

    def save(self, filepath: Any, overwrite: bool = True) -> None:
        """Write the model to a `.keras` archive that Keras reads too: architecture, weights, compile information.

        The file is replaced only once the new one is complete. An existing file with overwrite=False is a ValueError.
        """
        archive.save_model(self, filepath, overwrite=overwrite)

    def get_compile_config(self) -> dict[str, Any] | None:
        """How the model was compiled, as plain JSON data, or None."""
        compiled = self.__dict__.get("_compiled_with")
        return None if compiled is None else compiled.get_config()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as `get_compile_config` described."""
        self.__dict__["_compiled_with"] = Compiled.from_config(config)


def _returned(logs: dict[str, float], return_dict: bool) -> Any:
    if return_dict:
        return logs
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
