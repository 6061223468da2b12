"""What people type around `fit`, in Keras and in fanin: each case runs in both, and gives the same numbers."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import scipy.sparse
import torch

import fanin

RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(20, 3)).astype("float32")
Y, Z = X[:, :1] * 0.5, X[:, :2]
CLASSES = np.random.default_rng(2).integers(0, 2, 20)
QUIET = {"shuffle": False, "verbose": 0}


def fill(model):
    """The same weights for the model in both libraries."""
    random = np.random.default_rng(0)
    model.set_weights([random.normal(size=w.shape).astype("float32") * 0.5 for w in model.get_weights()])
    return model


def small(K, activation=None):
    return fill(K.Sequential([K.Input((3,)), K.layers.Dense(4, "tanh"), K.layers.Dense(1, activation)]))


def one_layer(K, kind=None):
    inputs = K.Input((3,))
    return fill((kind or K.Model)(inputs, K.layers.Dense(1)(inputs)))


def compiled(K, activation=None, loss="mse", **options):
    model = small(K, activation)
    model.compile("sgd", loss, **options)
    return model


def plain(value):
    """Numbers, lists and dicts, from whatever a library gives."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def by_keras(case):
    """What Keras gives, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plain(case(keras))


def agree(one, two):
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for name in one:
            agree(one[name], two[name])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for first, second in zip(one, two, strict=True):
            agree(first, second)
    else:
        assert one == pytest.approx(two, rel=1e-4, abs=1e-5)


# --- what is given ----------------------------------------------------------------------------------------------------


def class_weight_is_about_training(K):
    model = compiled(K, "sigmoid", "binary_crossentropy", weighted_metrics=["mae"])
    return model.fit(X, CLASSES, class_weight={0: 1.0, 1: 10.0}, validation_split=0.5, **QUIET).history


def columns_of_one(K):
    x = np.array([-1.0, 0.0, 1.0, 2.0])
    model = fill(K.Sequential([K.Input((1,)), K.layers.Dense(1)]))
    model.compile("sgd", "mse")
    history = model.fit(x, 2 * x - 1, **QUIET).history
    return history, model.evaluate(x, x, verbose=0), model.train_on_batch(x, x), model.predict(x, verbose=0)


def inputs_in_a_list(K):
    model = compiled(K)
    return model.fit([X], Y, **QUIET).history, model.evaluate((X,), Y, verbose=0)


def a_model_that_takes_a_dict(K):
    class Joined(K.Model):
        def __init__(self):
            super().__init__()
            self.dense = K.layers.Dense(1)

        def call(self, inputs):
            return self.dense(torch.cat([inputs["a"], inputs["b"]], -1))

    model, data = Joined(), {"a": X, "b": Z}
    model.compile("sgd", "mse")
    model.predict(data, verbose=0)
    fill(model)
    return model.fit(data, Y, **QUIET).history


def validation_data_in_a_list(K):
    given = [X, Y], [X, Y, np.ones(20)]
    return [compiled(K).fit(X, Y, validation_data=one, **QUIET).history for one in given]


def nothing_left_to_do(K):
    model = compiled(K)
    return model.fit(X, Y, epochs=0, **QUIET).history, model.fit(X, Y, epochs=2, initial_epoch=2, **QUIET).history


def epochs_to_validate(K):
    return compiled(K).fit(X, Y, epochs=3, validation_split=0.2, validation_freq=[1, 3], **QUIET).history


def targets_of_truth(K):
    model = compiled(K, "sigmoid", "binary_crossentropy")
    return model.fit(X, CLASSES > 0, class_weight={0: 1.0, 1: 2.0}, **QUIET).history


def an_output_without_targets(K):
    inputs = K.Input((3,))
    model = fill(K.Model(inputs, [K.layers.Dense(1)(inputs), K.layers.Dense(2)(inputs)]))
    model.compile("sgd", loss=["mse", None])
    return model.fit(X, [Y, None], **QUIET).history


def targets_without_the_last_dimension(K):
    inputs = K.Input((5, 3))
    model = fill(K.Model(inputs, K.layers.Dense(1)(inputs)))
    model.compile("sgd", "mse", metrics=["mae"])
    x = np.random.default_rng(3).normal(size=(6, 5, 3)).astype("float32")
    history = model.fit(x, x[:, :, 0], sample_weight=np.linspace(0, 1, 6), **QUIET).history
    return history, model.evaluate(x, x[:, :, :1, None], verbose=0)


def a_clone(K):
    model = compiled(K, metrics=["mae", lambda y, p: (y - p) * 2.0])
    model.fit(X, Y, **QUIET)
    if K is fanin:
        assert fanin.models.clone_model(model).compiled is False  # a lambda has no config
    model = compiled(K, metrics=["mae"])
    model.fit(X, Y, **QUIET)
    return fill(K.models.clone_model(model)).fit(X, Y, **QUIET).history


def a_model_from_json(K):
    model = K.models.model_from_json(compiled(K, metrics=["mae"]).to_json())
    return fill(model).fit(X, Y, **QUIET).history


def a_metric_without_a_name(K):
    return compiled(K, metrics=[lambda y, p: (y - p) * 2.0]).fit(X, Y, **QUIET).history


def sparse_matrices(K):
    model, x = compiled(K), scipy.sparse.csr_matrix(X)
    return model.fit(x, Y, **QUIET).history, model.predict(x, verbose=0), model.evaluate(x, Y, verbose=0)


def evaluation_without_an_optimizer(K):
    model = small(K)
    before = model.compiled
    model.compile(optimizer=None, loss="mse")
    return before, model.compiled, model.stop_training, model.evaluate(X, Y, verbose=0)


def passes_that_callbacks_stop(K):
    class Stop(K.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            self.model.stop_evaluating = True

        def on_predict_batch_end(self, batch, logs=None):
            self.model.stop_predicting = True

    model, options = compiled(K), {"batch_size": 4, "verbose": 0}
    stopped = model.evaluate(X, Y, callbacks=[Stop()], **options), model.predict(X, callbacks=[Stop()], **options)
    return stopped, model.evaluate(X, Y, **options), model.predict(X, **options)


def a_history_of_ones_own(K):
    history = K.callbacks.History()
    return compiled(K).fit(X, Y, callbacks=[history], **QUIET) is history, history.epoch


# --- losses and metrics -----------------------------------------------------------------------------------------------


def state_of_metrics(K):
    metric, seen = K.metrics.MeanAbsoluteError(), []

    class Look(K.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(metric.result()))

    model = compiled(K, metrics=[metric])
    model.fit(X, Y, batch_size=8, epochs=2, callbacks=[Look()], **QUIET)
    results = [{name: float(value) for name, value in model.get_metrics_result().items()}]
    model.evaluate(X, Y, verbose=0)
    results.append(float(metric.result()))
    model.train_on_batch(X, Y)
    return seen, results, float(metric.result())


def metrics_that_begin_anew_at_each_batch(K):
    seen = []

    class Each(K.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.reset_metrics()

        def on_train_batch_end(self, batch, logs=None):
            seen.append(dict(logs))

    return compiled(K, metrics=["mae"]).fit(X, Y, batch_size=8, callbacks=[Each()], **QUIET).history, seen


def metrics_of_several_numbers(K):
    metric = K.metrics.Precision(thresholds=[0.3, 0.6], name="precision")
    model = compiled(K, "sigmoid", "binary_crossentropy", metrics=[metric])
    return model.fit(X, CLASSES, epochs=2, **QUIET).history, model.evaluate(X, CLASSES, verbose=0)


def metrics_of_a_model(K):
    class Watched(K.Model):
        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            found = super().compute_metrics(x, y, y_pred, sample_weight)
            return {**found, "twice": 2 * float(found["mae"])}

    model = one_layer(K, Watched)
    model.compile("sgd", "mse", metrics=["mae"])
    history = model.fit(X, Y, batch_size=8, epochs=2, validation_data=(X, Y), **QUIET).history
    return history, model.evaluate(X, Y, verbose=0, return_dict=True)


def results_of_a_model(K):
    class Watched(K.Model):
        def get_metrics_result(self):
            found = super().get_metrics_result()
            return {**found, "twice": 2 * float(found["mae"])}

    model = one_layer(K, Watched)
    model.compile("sgd", "mse", metrics=["mae"])
    return model.fit(X, Y, batch_size=8, epochs=2, validation_data=(X, Y), **QUIET).history


def a_loss_of_ones_own_without_a_mode(K):
    class Doubled(K.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return 2 * ((y - y_pred) ** 2).mean()

    model = one_layer(K, Doubled)
    model.compile("sgd")
    return model.fit(X, Y, epochs=2, **QUIET).history


def a_penalty_alone(K):
    model = fill(K.Sequential([K.Input((3,)), K.layers.Dense(1, kernel_regularizer="l2")]))
    model.compile("sgd", metrics=["mae"])
    return model.fit(X, Y, epochs=2, **QUIET).history


def a_step_alone(K):
    class Counts(K.Model):
        def __init__(self):
            super().__init__()
            self.dense = K.layers.Dense(3)
            self.dense.build((None, 3))
            self.built = True

        def train_step(self, data):
            return {"rows": float(data[0].shape[0])}

    model = Counts()
    model.compile(optimizer="sgd")
    return model.fit(X, Y, **QUIET).history


def outputs_within_outputs(K, in_lists=False):
    inputs = K.Input((3,))
    one, two, three = (K.layers.Dense(1, name=name)(inputs) for name in ("one", "two", "three"))
    if in_lists:
        outputs, targets = [one, [two, three]], [Y, [Y + 1, Y * 2]]
    else:
        outputs, targets = {"p": {"q": one, "s": two}, "r": [three]}, {"p": {"q": Y, "s": Y + 1}, "r": [Y * 2]}
    model = fill(K.Model(inputs, outputs))
    model.compile("sgd", "mse")
    loss = model.fit(X, targets, **QUIET).history["loss"]
    return loss, [abs(model.get_layer(name).get_weights()[0]).sum() for name in ("one", "two", "three")]


def outputs_in_lists_within_a_list(K):
    return outputs_within_outputs(K, in_lists=True)


def a_model_that_holds_a_fitted_one(K):
    base = fill(K.Sequential([K.Input((3,)), K.layers.Dense(2)]))
    base.compile("sgd", "mse", metrics=["mae"])
    base.fit(X, Z, **QUIET)
    model = fill(K.Sequential([K.Input((3,)), base, K.layers.Dense(1)]))
    model.compile("sgd", "mse")
    history = model.fit(X, Y, validation_data=(X, Y), **QUIET).history
    return history, model.evaluate(X, Y, verbose=0), float(model.train_on_batch(X, Y))


def metrics_of_parts(K):
    class Measured(K.layers.Layer):
        def __init__(self):
            super().__init__()
            self.size = K.metrics.Mean(name="size")

        def call(self, inputs):
            return inputs

    class Inner(K.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.part, self.own = K.layers.Dense(1), Measured(), K.metrics.Mean(name="own")

        def call(self, inputs):
            return self.part(self.dense(inputs))

    class Outer(K.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.total = Inner(), K.metrics.Mean(name="total")

        def call(self, inputs):
            return self.inner(inputs)

    model = Outer()
    model.compile("sgd", "mse")
    return dict.fromkeys(model.fit(X, Y, **QUIET).history, 0)


def losses_that_a_call_adds(K):
    class Penalized(K.Model):
        def __init__(self):
            super().__init__()
            self.dense = K.layers.Dense(2, kernel_initializer="ones")

        def call(self, inputs):
            outputs = self.dense(inputs)
            self.add_loss((outputs**2).mean())
            return outputs

    model, held = Penalized(), Penalized()
    x, values = torch.ones(4, 2), []
    optimizer = None
    for _ in range(3):
        total = (model(x) ** 2).mean() + sum(model.losses)
        optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.01)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    outer = K.Sequential([K.Input((2,)), held])
    outer(x)
    fitted = Penalized()
    fitted.compile("sgd", "mse")
    history = fitted.fit(x, x, epochs=2, **QUIET).history
    return values, len(model.losses), len(outer.losses), history, len(fitted.losses)


CASES = [
    class_weight_is_about_training, columns_of_one, inputs_in_a_list, a_model_that_takes_a_dict,
    validation_data_in_a_list, nothing_left_to_do, epochs_to_validate, targets_of_truth, an_output_without_targets,
    targets_without_the_last_dimension, sparse_matrices, evaluation_without_an_optimizer, passes_that_callbacks_stop,
    a_history_of_ones_own, a_clone, a_model_from_json, a_metric_without_a_name,
    state_of_metrics, metrics_that_begin_anew_at_each_batch, metrics_of_several_numbers, metrics_of_a_model,
    results_of_a_model, outputs_within_outputs, outputs_in_lists_within_a_list, a_loss_of_ones_own_without_a_mode,
    a_penalty_alone, losses_that_a_call_adds, a_step_alone, a_model_that_holds_a_fitted_one, metrics_of_parts,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_both_give_the_same(case):
    agree(plain(case(fanin)), by_keras(case))


def tracked_in_a_call(K):
    class Tracked(K.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.energy = K.layers.Dense(1), K.metrics.Mean(name="energy")

        def call(self, x):
            outputs = self.dense(x)
            self.energy.update_state((outputs**2).mean().detach())
            return outputs

    model = Tracked()
    model.predict(X, verbose=0)
    fill(model)
    model.compile("sgd", "mse", metrics=["mae"])
    history = model.fit(X, Y, batch_size=10, epochs=2, validation_data=(X, Y), **QUIET).history
    return history, model.evaluate(X, Y, verbose=0, return_dict=True)


def tracked_in_a_loss(K):
    class Tracked(K.Model):
        def __init__(self, *given, **options):
            super().__init__(*given, **options)
            self.tracker = K.metrics.Mean(name="own")

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            value = ((y_pred - y) ** 2).mean()
            self.tracker.update_state(value.detach())
            return value

        def reset_metrics(self):
            self.tracker.reset_state()

        @property
        def metrics(self):
            return [self.tracker]

    model = one_layer(K, Tracked)
    model.compile("sgd")
    return model.fit(X, Y, batch_size=10, epochs=2, validation_data=(X, Y), **QUIET).history


@pytest.mark.parametrize("case", [tracked_in_a_call, tracked_in_a_loss], ids=lambda case: case.__name__)
def test_metrics_that_calls_update(case):
    with pytest.warns(UserWarning, match="eagerly.*a call updates the metric"):
        found = case(fanin)
    agree(plain(found), by_keras(case))


def test_what_cannot_be_trained_is_refused():
    for K in (keras, fanin):
        model = compiled(K, loss=None, metrics=["mae"])
        with pytest.raises(ValueError, match="loss"):
            model.fit(X, Y, **QUIET)
    model = small(fanin)
    model.compile(optimizer=None, loss="mse")
    with pytest.raises(ValueError, match="without an optimizer"):
        model.fit(X, Y, **QUIET)
    with pytest.raises(ValueError, match="validation_freq"):
        compiled(fanin).fit(X, Y, validation_split=0.5, validation_freq=0, **QUIET)
    with pytest.raises(ValueError, match="class_weight: expected one class for each row"):
        compiled(fanin).fit(X, np.zeros((20, 3, 1)), class_weight={0: 1.0}, **QUIET)


def test_json_goes_both_ways():
    given = compiled(fanin, metrics=["mae"])
    theirs = fill(keras.models.model_from_json(given.to_json()))
    ours = fill(fanin.models.model_from_json(theirs.to_json()))
    one, two = (model.fit(X, Y, **QUIET).history for model in (ours, theirs))
    agree(plain(one), plain(two))
