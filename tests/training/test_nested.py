"""A pass inside a pass, as of a callback that evaluates: both give the numbers that they give alone."""

import numpy as np
import pytest
import torch
import torchmetrics

import fanin
from fanin.callbacks import Callback
from fanin.errors import DataError
from fanin.layers import BatchNormalization, Dense

HOOKS = ["on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_test_begin"]
HOOKS += ["on_test_batch_begin", "on_test_batch_end", "on_test_end", "on_epoch_end", "on_train_end"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype("float32")
IDS = RNG.integers(0, 3, 24)
HOT = np.eye(3, dtype="float32")[IDS]
WEIGHT = RNG.random(24).astype("float32")


def made(loss="crossentropy", metrics=("acc", "crossentropy"), weighted=("accuracy",), kind=fanin.Sequential, **given):
    fanin.utils.set_random_seed(1)
    model = kind([fanin.Input((4,)), Dense(3, "softmax")])
    model.compile("sgd", loss, metrics=[*metrics], weighted_metrics=[*weighted], **given)
    return model


def during(hook, work):
    """A callback that works at one hook of `fit`, and not inside its own work; `found` is what that gave."""

    class Works(Callback):
        def __init__(self):
            super().__init__()
            self.found = []

        def _works(self, *args, **kwargs):
            self.found.append(work(self.model))

    setattr(Works, hook, Works._works)
    return Works()


def trained(model, callbacks=(), y=HOT):
    history = model.fit(
        X, y, batch_size=8, epochs=3, shuffle=False, validation_data=(X[:16], y[:16]), callbacks=[*callbacks], verbose=0
    )
    return history.history, model.get_weights()


PASSES = {
    "the same": lambda model: model.evaluate(X, HOT, verbose=0),
    "class ids": lambda model: model.evaluate(X, IDS, verbose=0),
    "other batches, weights": lambda model: model.evaluate(X, HOT, batch_size=5, sample_weight=WEIGHT, verbose=0),
    "one batch": lambda model: model.test_on_batch(X, IDS[:, None]),
    "predictions": lambda model: model.predict(X, batch_size=5, verbose=0).tolist(),
}


@pytest.fixture(scope="module")
def alone():
    return {eager: trained(made(run_eagerly=eager)) for eager in (False, True)}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("what", PASSES)
@pytest.mark.parametrize("eager", [False, True])
def test_fit_goes_on_as_without(alone, hook, what, eager):
    expected, weights = alone[eager]
    model, callback = made(run_eagerly=eager), during(hook, PASSES[what])
    found, after = trained(model, [callback])
    assert found == expected
    assert all(map(np.array_equal, after, weights))
    assert callback.found
    if hook == "on_train_end":  # the weights are those of now
        np.testing.assert_allclose(callback.found[-1], PASSES[what](model), rtol=1e-6)


def test_evaluate_gives_what_it_gives_alone():
    callback = during("on_train_batch_end", lambda model: [model.get_weights(), PASSES["class ids"](model)])
    trained(made(), [callback])
    other = made()
    for weights, found in callback.found:
        other.set_weights(weights)
        np.testing.assert_allclose(found, PASSES["class ids"](other), rtol=1e-6)


def test_a_refused_evaluation_leaves_fit_alone():
    def refused(model):
        with pytest.raises(DataError, match="expected that of the model's output"):
            model.evaluate(X, IDS, verbose=0)

    expected = trained(made("categorical_crossentropy"))[0]
    assert trained(made("categorical_crossentropy"), [during("on_train_batch_end", refused)])[0] == expected


class Counts(fanin.metrics.Metric):
    """Keeps a number, a tensor and a list, in Keras's way."""

    def __init__(self):
        super().__init__(name="counts")
        self.total, self.calls, self.seen = self.add_variable(name="total"), 0, []

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.add_(y_pred[:, 0].sum())
        self.calls += 1
        self.seen.append(len(y_pred))

    def result(self):
        return self.total + self.calls + sum(self.seen)

    def reset_state(self):
        self.total.zero_()
        self.calls = 0
        self.seen.clear()


class Spread(torchmetrics.CatMetric):
    """Keeps values in a list."""

    def update(self, preds, target):
        super().update(preds[:, 0].clone())

    def compute(self):
        return super().compute().std()


@pytest.mark.parametrize("metric", [Counts, lambda: torchmetrics.Accuracy("multiclass", num_classes=3), Spread])
def test_metrics_that_keep_their_own_state(metric):
    def model():
        return made("sparse_categorical_crossentropy", [metric()], ())

    callback = during("on_train_batch_end", lambda model: model.evaluate(X, IDS, batch_size=5, verbose=0))
    expected = trained(model(), [during("on_train_batch_end", id)], y=IDS)[0]
    assert trained(model(), [callback], y=IDS)[0] == expected


class OwnStep(fanin.Sequential):
    """A step and a metric of its own."""

    def __init__(self, layers):
        super().__init__(layers)
        self.mean = fanin.metrics.Mean(name="mean")

    def train_step(self, data):
        logs = super().train_step(data)
        self.mean.update_state(self(data[0])[:, 0])
        return logs | {"mean": self.mean.result()}


def test_metrics_of_a_step_of_ones_own():
    expected = trained(made(kind=OwnStep))[0]
    callback = during("on_train_batch_end", lambda model: model.evaluate(X, HOT, batch_size=5, verbose=0))
    assert trained(made(kind=OwnStep), [callback])[0] == expected


def test_training_goes_on_in_train_mode_after_one_batch_on_its_own():
    fanin.utils.set_random_seed(1)
    model = fanin.Sequential([fanin.Input((4,)), BatchNormalization(), Dense(3, "softmax")])
    model.compile("sgd", "crossentropy")
    modes = []
    callback = during("on_train_batch_end", lambda model: model.train_on_batch(X, IDS))
    later = during("on_train_batch_end", lambda model: modes.append(model.training))
    model.fit(X, HOT, batch_size=8, epochs=1, callbacks=[callback, later], verbose=0)
    assert modes == [True] * 3
    assert not model.training


def test_metrics_show_the_pass_that_goes_on():
    model = made()
    shown = during("on_train_batch_end", lambda model: float(model.get_metrics_result()["acc"]))
    expected = during("on_train_batch_end", lambda model: float(model.get_metrics_result()["acc"]))
    trained(made(), [expected])
    trained(model, [during("on_train_batch_end", PASSES["class ids"]), shown])
    assert shown.found == expected.found


def test_after_fit_evaluate_is_a_pass_of_its_own():
    model = made()
    trained(model, [during("on_epoch_end", PASSES["class ids"])])
    values = model.evaluate(X, IDS, verbose=0, return_dict=True)
    assert {name: float(value) for name, value in model.get_metrics_result().items()} == pytest.approx(values)


def test_an_error_in_fit_ends_it():
    def fails(model):
        raise RuntimeError("stop")

    model = made()
    with pytest.raises(RuntimeError, match="stop"):
        trained(model, [during("on_train_batch_end", fails)])
    values = model.evaluate(X, IDS, verbose=0, return_dict=True)
    assert {name: float(value) for name, value in model.get_metrics_result().items()} == pytest.approx(values)
    assert not torch.is_inference_mode_enabled()
