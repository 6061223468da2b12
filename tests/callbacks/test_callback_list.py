"""The hooks come in Keras's order; batches wait for numbers only where somebody looks; everything is torn down."""

import keras
import numpy as np
import pytest
import torch

import fanin
from fanin.callbacks import Callback, CallbackList, EarlyStopping, History, ModelCheckpoint
from fanin.callbacks.base import HOOKS
from fanin.training.trainer import Trainer


def recorder(base, hooks=HOOKS):
    """A callback that notes each call: the hook, the number of the epoch or batch, and the names in the logs."""

    def note(hook):
        def method(self, *number, logs=None):
            if number and not isinstance(number[-1], int):
                *number, logs = number
            self.calls.append((hook, *number, *sorted(logs or {})))

        return method

    made = type("Recorder", (base,), {hook: note(hook) for hook in hooks})()
    made.calls = []
    return made


def library_model(library):
    made = library.Sequential([library.Input((4,)), library.layers.Dense(1)])
    made.compile("sgd", "mse", metrics=["mae"])
    return made


@pytest.fixture
def both():
    return [(library_model(library), library.callbacks.Callback) for library in (keras, fanin)]


def test_the_hooks_of_fit_come_as_in_keras(both, data):
    x, y = data
    calls = []
    for model, base in both:
        seen = recorder(base)
        model.fit(x, y, epochs=2, batch_size=5, validation_data=(x[:7], y[:7]), callbacks=[seen], verbose=0)
        calls.append(seen.calls)
    assert calls[0] == calls[1]
    assert len(calls[1]) == 2 + 2 * (2 + 2 * 3 + 2 + 2 * 2)


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_the_hooks_of_evaluate_and_predict_come_as_in_keras(both, data, method):
    x, y = data
    calls = []
    for model, base in both:
        seen = recorder(base)
        getattr(model, method)(x, *([y] if method == "evaluate" else []), batch_size=5, callbacks=[seen], verbose=0)
        calls.append(seen.calls)
    assert calls[0] == calls[1]
    assert len(calls[1]) == 8


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_train_batch_end", "on_batch_begin", "on_test_batch_end"])
def test_training_stops_where_it_does_in_keras(both, data, hook):
    x, y = data
    calls = []
    for model, base in both:
        seen = recorder(base)

        def stop(self, number, logs=None, model=model):
            model.stop_training = True

        stopper = type("Stopper", (base,), {hook: stop})()
        model.fit(x, y, epochs=3, batch_size=5, validation_data=(x, y), callbacks=[stopper, seen], verbose=0)
        calls.append(seen.calls)
    assert calls[0] == calls[1]


def test_outputs_of_predictions_are_seen(model, data):
    seen = []

    class Look(Callback):
        def on_predict_batch_end(self, batch, logs=None):
            seen.append(logs["outputs"])

    x, _ = data
    found = model().predict(x, batch_size=5, callbacks=Look(), verbose=0)
    np.testing.assert_array_equal(torch.cat(seen).numpy(), found)


@pytest.mark.parametrize(
    ("hooks", "expected"),
    [
        ([], 1),  # once, at the end of the epoch
        (["on_epoch_end", "on_train_batch_begin", "on_batch_begin", "on_test_batch_begin"], 1),
        (["on_train_batch_end"], 4),
        (["on_batch_end"], 4),
    ],
)
def test_numbers_of_a_batch_are_worked_out_only_for_those_who_look(model, data, monkeypatch, hooks, expected):
    x, y = data
    count = []
    real = Trainer.logs
    monkeypatch.setattr(Trainer, "logs", lambda self: count.append(1) or real(self))
    model().fit(x, y, batch_size=4, callbacks=[recorder(Callback, hooks)], verbose=0)
    assert len(count) == expected


def test_idle_hooks_are_not_waited_for(tmp_path):
    path = tmp_path / "a.keras"

    class Counts(ModelCheckpoint):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)

    assert not CallbackList(ModelCheckpoint(path)).wants("on_train_batch_end")
    assert CallbackList(ModelCheckpoint(path, save_freq=3)).wants("on_train_batch_end")
    assert CallbackList(Counts(path)).wants("on_train_batch_end")


def test_hooks_set_on_the_object_count():
    callback = Callback()
    callback.on_test_batch_end = lambda batch, logs: None
    assert CallbackList([callback]).wants("on_test_batch_end")
    assert not CallbackList([Callback()]).wants("on_test_batch_end")


def test_one_several_and_nested_callbacks(model, data):
    x, y = data
    seen = [recorder(Callback, ["on_epoch_end"]) for _ in range(4)]
    model().fit(x, y, callbacks=[seen[0], (seen[1], [seen[2]]), CallbackList(seen[3])], verbose=0)
    model().fit(x, y, callbacks=seen[0], verbose=0)
    assert [len(one.calls) for one in seen] == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("early", "found 'early'"), (EarlyStopping, "write EarlyStopping"), ([None], "found None"), (3, "found 3")],
)
def test_what_is_no_callback_is_refused(model, data, wrong, words):
    with pytest.raises(TypeError, match=words):
        model().fit(*data, callbacks=wrong, verbose=0)


def test_a_loop_of_ones_own():
    seen = recorder(Callback)
    hooks = CallbackList([seen], add_history=True, model="model", epochs=2)
    hooks.on_train_begin()
    hooks.on_epoch_end(0, {"loss": 1.0})
    hooks.on_train_batch_end(3, logs={"loss": 2.0})
    assert seen.calls == [("on_train_begin",), ("on_epoch_end", 0, "loss"), ("on_train_batch_end", 3, "loss")]
    assert (seen.model, seen.params) == ("model", {"epochs": 2})
    history = hooks.callbacks[-1]
    assert isinstance(history, History)
    assert history.history == {"loss": [1.0]}
    assert len(CallbackList([history], add_history=True).callbacks) == 1
    with pytest.raises(AttributeError, match="on_epoch"):
        hooks.on_epoch  # noqa: B018
    with pytest.raises(ValueError, match="add_progbar"):
        CallbackList(add_progbar=True)


class Holds(Callback):
    """Raises at a hook, and notes that it was torn down."""

    def __init__(self, hook=None, error=None, log=None, name=""):
        super().__init__()
        self.error, self.log, self.name = error, log, name
        if hook:
            setattr(self, hook, self.fail)

    def fail(self, *args, **kwargs):
        raise self.error

    def teardown(self):
        self.log.append(self.name)
        if self.name == "bad":
            raise ZeroDivisionError


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    ("method", "hook"),
    [
        ("fit", "on_train_begin"),
        ("fit", "on_train_batch_end"),
        ("fit", "on_train_end"),
        ("evaluate", "on_test_begin"),
        ("evaluate", "on_test_batch_end"),
        ("predict", "on_predict_begin"),
        ("predict", "on_predict_end"),
    ],
)
def test_teardown_comes_after_errors_and_interrupts(model, data, method, hook, error):
    log = []
    arguments = data[:1] if method == "predict" else data
    callbacks = [Holds(log=log, name="first"), Holds(hook, error, log, "second")]
    with pytest.raises(type(error)):
        getattr(model(), method)(*arguments, callbacks=callbacks, verbose=0)
    assert log == ["second", "first"]


def test_every_callback_is_torn_down_though_one_fails(model, data):
    log = []
    callbacks = [Holds(log=log, name=name) for name in ("first", "bad", "third")]
    with pytest.raises(ZeroDivisionError):
        model().fit(*data, callbacks=callbacks, verbose=0)
    assert log == ["third", "bad", "first"]
