"""The loops: fit, evaluate, predict, and one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from fanin import arguments
from fanin.callbacks import CallbackList, History
from fanin.errors import DataError
from fanin.graph.tree import as_list, tree_map
from fanin.layers.base.variables import to_numpy
from fanin.training import predict_loop, preparation
from fanin.training.compiled import Compiled
from fanin.training.data import Arrays, Batch
from fanin.training.denormals import flush_denormals
from fanin.training.nested import nestable
from fanin.training.prediction import Prediction
from fanin.training.progress import Progress
from fanin.training.trainer import Trainer, overrides

Logs = dict[str, float]


@nestable
def fit(
    model: Any, compiled: Compiled, x: Any, y: Any, *, batch_size: int | None, epochs: int, verbose: Any,
    callbacks: Any, validation_split: float, validation_data: Any, shuffle: bool, class_weight: Any, sample_weight: Any,
    initial_epoch: int, steps_per_epoch: int | None, validation_steps: int | None, validation_batch_size: int | None,
    validation_freq: int,
) -> History:  # fmt: skip
    """Train `model`; see `Model.fit`."""
    size = arguments.positive("batch_size", 32 if batch_size is None else batch_size)
    held_size = arguments.positive("validation_batch_size", validation_batch_size or size)
    epochs, initial_epoch = arguments.whole("epochs", epochs), arguments.whole("initial_epoch", initial_epoch)
    if validation_steps is not None:
        arguments.positive("validation_steps", validation_steps)
    validates = preparation.validates(validation_freq)
    data = preparation.reader(model, class_weight, size, shuffle).read(x, y, sample_weight)
    held_out: Any = None
    if validation_data is not None:
        held_out = preparation.validation(model, held_size, validation_data)
    elif validation_split:
        if not isinstance(data, Arrays):
            raise ValueError("validation_split needs arrays; give validation_data instead.")
        data, held_out = data.split(validation_split)
        if class_weight is not None:  # is about training
            held_out = held_out.without_weights()
    trainer = preparation.trainer(model, compiled, data, "y", trains=True)
    if held_out is not None:
        preparation.check_targets(compiled, held_out, "validation y")
    steps = preparation.steps(data, size, steps_per_epoch, "steps_per_epoch")
    history = next((one for one in as_list(callbacks) if type(one) is History), None) or History()
    params = {"epochs": epochs, "steps": steps, "verbose": verbose, "directions": compiled.directions()}
    hooks = CallbackList([*(one for one in as_list(callbacks) if one is not history), history], model=model, **params)
    progress = Progress(verbose, epochs)
    model.stop_training = False
    model._initial_epoch, model._initial_batch = initial_epoch, 0
    model.history = history
    batches = preparation.endless(data, size, shuffle) if steps_per_epoch is not None else None
    reuse = not overrides(model, "train_step")
    logs: Logs = {}
    try:
        hooks.call("on_train_begin", {})
        done = model._initial_batch  # of the first epoch
        for epoch in range(model._initial_epoch, epochs):
            hooks.call("on_epoch_begin", epoch, {})
            progress.begin(f"Epoch {epoch + 1}/{epochs}", steps)
            source = (
                preparation.batches(data, size, shuffle, reuse=reuse) if batches is None else islice(batches, steps)
            )
            with _train_mode(model), flush_denormals():
                logs = _train_epoch(trainer, source, hooks, progress, done)
            done = 0
            if held_out is not None and validates(epoch + 1):
                found = _run_test(
                    trainer, preparation.batches(held_out, held_size, False, validation_steps), hooks, None
                )
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


def _train_epoch(trainer: Trainer, source: Iterator[Batch], hooks: CallbackList, progress: Progress, done: int) -> Logs:
    trainer.begin_pass()
    begins, ends = hooks.wants("on_train_batch_begin"), hooks.wants("on_train_batch_end")
    for number, batch in enumerate(islice(source, done, None), done):
        if begins:
            hooks.call("on_train_batch_begin", number, {})
            trainer.revalidate()
        trainer.train(batch)
        if ends:
            hooks.call("on_train_batch_end", number, trainer.logs())
            trainer.revalidate()
        progress.advance(trainer.logs)
        if trainer.model.stop_training:
            break
    if trainer.rows == 0:
        raise DataError(preparation.NO_BATCH.format("train on"))
    return trainer.logs()


@nestable
def evaluate(
    model: Any, compiled: Compiled, x: Any, y: Any, *, batch_size: int | None, verbose: Any, sample_weight: Any,
    steps: int | None, callbacks: Any,
) -> Logs:  # fmt: skip
    """Loss and metrics over data; see `Model.evaluate`."""
    size = arguments.positive("batch_size", 32 if batch_size is None else batch_size)
    data = preparation.reader(model, None, size, stays=False).read(x, y, sample_weight)
    trainer = preparation.trainer(model, compiled, data, "y")
    hooks = CallbackList(callbacks, model=model, epochs=1, steps=preparation.steps(data, size, steps), verbose=verbose)
    progress = Progress(verbose)
    try:
        progress.begin("Evaluate", preparation.steps(data, size, steps))
        logs = _run_test(trainer, preparation.batches_once(model, data, size, steps), hooks, progress)
        progress.end(logs)
    finally:
        progress.close()
        hooks.teardown()
    return logs


def _run_test(trainer: Trainer, source: Iterator[Batch], hooks: CallbackList, progress: Progress | None) -> Logs:
    trainer.model.stop_evaluating = False
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
            if trainer.model.stop_evaluating:
                break
    if trainer.rows == 0:
        raise DataError(preparation.NO_BATCH.format("evaluate"))
    logs = trainer.logs()
    hooks.call("on_test_end", logs)
    return logs


def predict(
    model: Any, x: Any, batch_size: int | None, verbose: Any, steps: int | None, callbacks: Any, out: Any = None,
    deterministic: bool = False,
) -> Any:  # fmt: skip
    """Outputs for x; see `Model.predict`."""
    size = 32 if batch_size is None else arguments.positive("batch_size", batch_size)
    own: Prediction | None = model.__dict__.get("_prediction")
    small = type(x) is np.ndarray and x.ndim > 0 and 0 < x.shape[0] <= size
    plain = small and callbacks is None and steps is None and out is None and verbose == 0 and not deterministic
    if plain and own is not None and (found := own.quickly(x)) is not None:
        return found
    data = preparation.reader(model, None, size, finite=False, stays=False).read(x)
    hooks = CallbackList(callbacks, model=model, epochs=1, steps=preparation.steps(data, size, steps), verbose=verbose)
    progress = Progress(verbose)
    try:
        hooks.call("on_predict_begin", {})
        with _eval_mode(model):
            prediction = _prediction(model)
            runner = predict_loop.Tiled(prediction) if deterministic else prediction
            in_batches = deterministic or steps is not None or hooks.wants("on_predict_batch_begin")
            if not in_batches and not hooks.wants("on_predict_batch_end"):
                size = predict_loop.rows_of_a_run(prediction, data, size, is_free=batch_size is None)
            progress.begin("Predict", preparation.steps(data, size, steps))
            batches = preparation.batches_once(model, data, size, steps)
            outputs = predict_loop.run(runner, data, batches, hooks, progress, out, steps is None)
            if plain and len(x) <= size and not overrides(model, "predict_step"):
                prediction.remember(x)
        progress.end({})
        hooks.call("on_predict_end", {})
    finally:
        progress.close()
        hooks.teardown()
    return outputs


# --- one batch ----------------------------------------------------------------------------------------------


@nestable
def train_on_batch(model: Any, compiled: Compiled, x: Any, y: Any, sample_weight: Any, class_weight: Any) -> Logs:
    """One step; see `Model.train_on_batch`."""
    data = preparation.reader(model, class_weight).arrays(x, y, sample_weight)
    trainer = preparation.trainer(model, compiled, data, "y", trains=True)
    with _train_mode(model), flush_denormals():
        trainer.begin_pass()
        for batch in data.batches(_one_batch(data)):
            trainer.train(batch)
    return trainer.logs()


@nestable
def test_on_batch(model: Any, compiled: Compiled, x: Any, y: Any, sample_weight: Any) -> Logs:
    """Loss and metrics on one batch; see `Model.test_on_batch`."""
    data = preparation.reader(model).arrays(x, y, sample_weight)
    return _run_test(
        preparation.trainer(model, compiled, data, "y"), data.batches(_one_batch(data)), CallbackList(), None
    )


def _one_batch(data: Arrays) -> int:
    if data.rows == 0:
        raise DataError("The batch is empty.")
    return data.rows


def predict_on_batch(model: Any, x: Any) -> Any:
    """Outputs of one batch; see `Model.predict_on_batch`."""
    data = preparation.reader(model, finite=False).arrays(x)
    with _eval_mode(model):
        return tree_map(to_numpy, _prediction(model)(data.x))


def _prediction(model: Any) -> Prediction:
    """The compiled prediction of a model: of its call, or of a `predict_step` of its own."""
    model._see_all_children()
    prediction: Prediction | None = model.__dict__.get("_prediction")
    if prediction is None:
        own = (lambda x: model.predict_step((x,))) if overrides(model, "predict_step") else None
        prediction = model.__dict__["_prediction"] = Prediction(model, own)
    prediction.revalidate()
    return prediction


@contextmanager
def _train_mode(model: Any) -> Iterator[None]:
    model.train()
    try:
        yield
    finally:
        model.eval()


@contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    """Every part in eval mode, by an `eval` of the model's own too; after it each is as it was."""
    was = model.training
    before = [(module, module.training) for module in model.modules()]
    trains = any(training for _, training in before)
    if trains:
        model.eval()
    try:
        yield
    finally:
        if was:
            model.train()
        for module, training in before if trains else ():
            module.training = training
