"""The loops: fit, evaluate, predict, and one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch

from fanin.callbacks import CallbackList, History
from fanin.errors import DataError
from fanin.graph.tree import as_list, tree_map
from fanin.layers.devices import device_of
from fanin.layers.variables import to_numpy
from fanin.training import predicting
from fanin.training.compiled import Compiled
from fanin.training.data import Arrays, Batch, Reader, Stream
from fanin.training.denormals import flush_denormals
from fanin.training.prediction import Prediction
from fanin.training.progress import Progress
from fanin.training.trainer import Trainer, overrides

Logs = dict[str, float]


def fit(
    model: Any, compiled: Compiled, x: Any, y: Any, *, batch_size: int | None, epochs: int, verbose: Any,
    callbacks: Any, validation_split: float, validation_data: Any, shuffle: bool, class_weight: Any, sample_weight: Any,
    initial_epoch: int, steps_per_epoch: int | None, validation_steps: int | None, validation_batch_size: int | None,
    validation_freq: int,
) -> History:  # fmt: skip
    """Train `model`; see `Model.fit`."""
    size = _positive("batch_size", 32 if batch_size is None else batch_size)
    held_size = _positive("validation_batch_size", validation_batch_size or size)
    epochs, initial_epoch = _whole("epochs", epochs), _whole("initial_epoch", initial_epoch)
    data = _reader(model, class_weight, size, shuffle).read(x, y, sample_weight)
    held_out: Any = None
    if validation_data is not None:
        held_out = _read_validation(_reader(model, None, held_size), validation_data)
    elif validation_split:
        if not isinstance(data, Arrays):
            raise ValueError("validation_split needs arrays; give validation_data instead.")
        data, held_out = data.split(validation_split)
    trainer = _ready(model, compiled, data, "y")
    if held_out is not None:
        _check_targets(compiled, held_out, "validation y")
    steps = _steps(data, size, steps_per_epoch)
    history = History()
    params = {"epochs": epochs, "steps": steps, "verbose": verbose, "directions": compiled.directions()}
    hooks = CallbackList([*as_list(callbacks), history], model=model, **params)
    progress = Progress(verbose, epochs)
    model.stop_training = False
    model.history = history
    batches = _endless(data, size, shuffle) if steps_per_epoch is not None else None
    reuse = not overrides(model, "train_step")
    logs: Logs = {}
    try:
        hooks.call("on_train_begin", {})
        for epoch in range(initial_epoch, epochs):
            hooks.call("on_epoch_begin", epoch, {})
            progress.begin(f"Epoch {epoch + 1}/{epochs}", steps)
            source = _batches(data, size, shuffle, reuse=reuse) if batches is None else islice(batches, steps)
            with _train_mode(model), flush_denormals():
                logs = _train_epoch(trainer, source, hooks, progress)
            if held_out is not None and (epoch + 1) % validation_freq == 0:
                found = _run_test(trainer, _batches(held_out, held_size, False, validation_steps), hooks, None)
                logs |= {f"val_{name}": value for name, value in found.items()}
            progress.end(logs)
            hooks.call("on_epoch_end", epoch, logs)
            if model.stop_training:
                break
        trainer.finish()
        hooks.call("on_train_end", logs)
    finally:
        progress.close()
        hooks.teardown()
    return history


def _train_epoch(trainer: Trainer, source: Iterator[Batch], hooks: CallbackList, progress: Progress) -> Logs:
    trainer.begin_pass()
    begins, ends = hooks.wants("on_train_batch_begin"), hooks.wants("on_train_batch_end")
    for number, batch in enumerate(source):
        if begins:
            hooks.call("on_train_batch_begin", number, {})
            trainer.look()
        trainer.train(batch)
        if ends:
            hooks.call("on_train_batch_end", number, trainer.logs())
            trainer.look()
        progress.advance(trainer.logs)
        if trainer.model.stop_training:
            break
    if trainer.rows == 0:
        raise DataError("The data is empty: there is nothing to train on.")
    return trainer.logs()


def evaluate(
    model: Any, compiled: Compiled, x: Any, y: Any, *, batch_size: int | None, verbose: Any, sample_weight: Any,
    steps: int | None, callbacks: Any,
) -> Logs:  # fmt: skip
    """Loss and metrics over data; see `Model.evaluate`."""
    size = _positive("batch_size", 32 if batch_size is None else batch_size)
    data = _reader(model, None, size).read(x, y, sample_weight)
    trainer = _ready(model, compiled, data, "y")
    hooks = CallbackList(callbacks, model=model, epochs=1, steps=_steps(data, size, steps), verbose=verbose)
    progress = Progress(verbose)
    try:
        progress.begin("Evaluate", _steps(data, size, steps))
        logs = _run_test(trainer, _batches(data, size, False, steps), hooks, progress)
        progress.end(logs)
    finally:
        progress.close()
        hooks.teardown()
    return logs


def _run_test(trainer: Trainer, source: Iterator[Batch], hooks: CallbackList, progress: Progress | None) -> Logs:
    hooks.call("on_test_begin", {})
    with _eval_mode(trainer.model):
        trainer.begin_pass()
        for number, batch in enumerate(source):
            hooks.call("on_test_batch_begin", number, {})
            trainer.test(batch)
            if hooks.wants("on_test_batch_end"):
                hooks.call("on_test_batch_end", number, trainer.logs())
            if progress is not None:
                progress.advance(trainer.logs)
    if trainer.rows == 0:
        raise DataError("The data is empty: there is nothing to evaluate.")
    logs = trainer.logs()
    hooks.call("on_test_end", logs)
    return logs


def predict(
    model: Any, x: Any, *, batch_size: int | None, verbose: Any, steps: int | None, callbacks: Any, out: Any = None,
    deterministic: bool = False,
) -> Any:  # fmt: skip
    """Outputs for x; see `Model.predict`."""
    size = 32 if batch_size is None else _positive("batch_size", batch_size)
    own: Prediction | None = model.__dict__.get("_prediction")
    small = type(x) is np.ndarray and x.ndim > 0 and 0 < x.shape[0] <= size
    plain = small and callbacks is None and steps is None and out is None and verbose == 0 and not deterministic
    if plain and own is not None and (found := predicting.quickly(own, x)) is not None:
        return found
    data = _reader(model, None, size, finite=False).read(x)
    hooks = CallbackList(callbacks, model=model, epochs=1, steps=_steps(data, size, steps), verbose=verbose)
    progress = Progress(verbose)
    try:
        hooks.call("on_predict_begin", {})
        with _eval_mode(model):
            prediction = _prediction(model)
            runner = predicting.Tiled(prediction) if deterministic else prediction
            in_batches = deterministic or steps is not None or hooks.wants("on_predict_batch_begin")
            if not in_batches and not hooks.wants("on_predict_batch_end"):
                size = predicting.rows_of_a_run(prediction, data, size, is_free=batch_size is None)
            progress.begin("Predict", _steps(data, size, steps))
            batches = _batches(data, size, False, steps)
            outputs = predicting.run(runner, data, batches, hooks, progress, out, steps is None)
            if plain and len(x) <= size and not overrides(model, "predict_step"):
                prediction.remember(x)
        progress.end({})
        hooks.call("on_predict_end", {})
    finally:
        progress.close()
        hooks.teardown()
    return outputs


# --- one batch ----------------------------------------------------------------------------------------------


def train_on_batch(model: Any, compiled: Compiled, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> Logs:
    """One step; see `Model.train_on_batch`."""
    data = _reader(model, class_weight).arrays(x, y, sample_weight)
    trainer = _ready(model, compiled, data, "y")
    with _train_mode(model), flush_denormals():
        trainer.begin_pass()
        for batch in data.batches(_one_batch(data)):
            trainer.train(batch)
    return trainer.logs()


def test_on_batch(model: Any, compiled: Compiled, x: Any, y: Any, sample_weight: Any) -> Logs:
    """Loss and metrics on one batch; see `Model.test_on_batch`."""
    data = _reader(model).arrays(x, y, sample_weight)
    return _run_test(_ready(model, compiled, data, "y"), data.batches(_one_batch(data)), CallbackList(), None)


def _one_batch(data: Arrays) -> int:
    if data.rows == 0:
        raise DataError("The batch is empty.")
    return data.rows


def predict_on_batch(model: Any, x: Any) -> Any:
    """Outputs of one batch; see `Model.predict_on_batch`."""
    data = _reader(model, finite=False).arrays(x)
    with _eval_mode(model):
        return tree_map(to_numpy, _prediction(model)(data.x))


def _prediction(model: Any) -> Prediction:
    """The compiled prediction of a model: of its call, or of a `predict_step` of its own."""
    prediction: Prediction | None = model.__dict__.get("_prediction")
    if prediction is None:
        own = (lambda x: model.predict_step((x,))) if overrides(model, "predict_step") else None
        prediction = model.__dict__["_prediction"] = Prediction(model, own)
    prediction.look()
    return prediction


# --- getting ready ------------------------------------------------------------------------------------------


def _reader(
    model: Any, class_weight: Any = None, batch_size: int = 32, shuffle: bool = False, finite: bool = True
) -> Reader:
    return Reader(model.dtype_policy.variable, device_of(model), class_weight, finite, batch_size, shuffle)


def _read_validation(reader: Reader, given: Any) -> Arrays | Stream:
    return reader.read(*given) if isinstance(given, tuple) else reader.read(given)


def _ready(model: Any, compiled: Compiled, data: Arrays | Stream, name: str) -> Trainer:
    """Build the model for the data's shape, settle the metrics, and check the targets before anything is trained."""
    x, y = (data.x, data.y) if isinstance(data, Arrays) else data.peek()[:2]
    if y is None and compiled.has_loss:
        raise DataError(f"{name} is missing: the loss needs targets.")
    if isinstance(data, Arrays) and data.rows == 0:
        raise DataError("The data is empty: there is nothing to train on.")
    if not model.built:
        model.build(tree_map(lambda leaf: (None, *leaf.shape[1:]), x))
    output_shape = _output_shape(model, x)
    compiled.bind(model, output_shape, y)
    _check_targets(compiled, data, name)
    return Trainer(model, compiled, output_shape)


def _output_shape(model: Any, x: Any) -> Any:
    """The shapes of the outputs for this data; a `call` that decides by values is run on the first rows."""
    try:
        return model.compute_output_shape(tree_map(lambda leaf: (None, *leaf.shape[1:]), x))
    except ValueError:
        if model._says_shape():
            raise
    with _eval_mode(model), torch.no_grad():
        outputs = model(tree_map(lambda leaf: leaf[:2], x))
    return tree_map(lambda leaf: (None, *leaf.shape[1:]), outputs)


def _check_targets(compiled: Compiled, data: Arrays | Stream, name: str) -> None:
    if isinstance(data, Arrays):
        compiled.check_targets(data.y, name)
    else:  # `peek` has prepared the first batch; every later one is looked at when it comes
        data.check = lambda batch, where: compiled.check_targets(batch.y, f"{where}: {name}")
        data.check(data.peek(), "batch 0")


def _batches(
    data: Arrays | Stream, batch_size: int, shuffle: bool, steps: int | None = None, reuse: bool = False
) -> Iterator[Batch]:
    source = data.batches(batch_size, shuffle, reuse) if isinstance(data, Arrays) else data.batches()
    return source if steps is None else islice(source, steps)


def _endless(data: Arrays | Stream, batch_size: int, shuffle: bool) -> Iterator[Batch]:
    """Batches pass after pass, for epochs that are counted in steps."""
    while True:
        found = False
        for batch in _batches(data, batch_size, shuffle):
            found = True
            yield batch
        if not found:
            return


def _steps(data: Arrays | Stream, batch_size: int, asked: int | None) -> int | None:
    if asked is not None:
        return _positive("steps", asked)
    return data.steps(batch_size) if isinstance(data, Arrays) else data.steps()


def _positive(name: str, value: Any) -> int:
    return _whole(name, value, least=1, expected="a positive integer")


def _whole(name: str, value: Any, least: int = 0, expected: str = "a whole number") -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be {expected}, found {value!r}.")
    return int(value)


@contextmanager
def _train_mode(model: Any) -> Iterator[None]:
    model.train()
    try:
        yield
    finally:
        model.eval()


@contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    """Every part in eval mode; a model that was in train mode goes back to it."""
    was = model.training
    if was or any(module.training for module in model.modules()):
        model.eval()
    try:
        yield
    finally:
        if was:
            model.train()
