"""Fifty steps (twenty of random models) from equal weights on equal batches stay together with real Keras."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fanin

STEPS, ROWS = 50, 16
OPTIMIZERS = {
    "sgd": {"learning_rate": 0.05},
    "sgd momentum": {"learning_rate": 0.02, "momentum": 0.9},
    "sgd nesterov": {"learning_rate": 0.02, "momentum": 0.8, "nesterov": True},
    "adam": {"learning_rate": 0.003},
    "adamw": {"learning_rate": 0.003, "weight_decay": 0.02},
    "rmsprop": {"learning_rate": 0.002},
    "rmsprop centered": {"learning_rate": 0.002, "centered": True, "momentum": 0.5},
}
CLASSES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}


def optimizer(library, name, **more):
    return getattr(library.optimizers, CLASSES[name.split()[0]])(**OPTIMIZERS[name], **more)


def build(library, layers, x, opt, loss, **compiled):
    made = library.Sequential([library.layers.Dense(**arguments) for arguments in layers])
    made.build((None, x.shape[1]))
    made.compile(opt, loss, **compiled)
    return made


def both(layers, x, opt, loss, more=None, **compiled):
    """The same model in Keras and here, with equal weights."""
    theirs = build(keras, layers, x, optimizer(keras, opt, **(more or {})), loss, **compiled)
    ours = build(fanin, layers, x, optimizer(fanin, opt, **(more or {})), loss, **compiled)
    ours.set_weights(theirs.get_weights())
    return theirs, ours


def assert_close(theirs, ours, bound=1e-5):
    for one, other in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, atol=bound, rtol=bound)


def problem(classes, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(STEPS * ROWS, 6)).astype("float32")
    return x, rng.integers(0, classes, STEPS * ROWS)


# Gradients are clipped before any rule sees them; with all rules in test_optimizers.py.
@pytest.mark.parametrize(
    ("name", "clip"),
    [
        *((name, {}) for name in OPTIMIZERS),
        *itertools.product(["sgd", "adam"], [{"clipnorm": 0.1}, {"global_clipnorm": 0.2}, {"clipvalue": 0.01}]),
    ],
)
def test_optimizers_with_clipping(name, clip):
    x, y = problem(3, 1)
    layers = [{"units": 7, "activation": "tanh"}, {"units": 3, "activation": "softmax"}]
    theirs, ours = both(layers, x, name, "sparse_categorical_crossentropy", clip)
    for model in (theirs, ours):
        model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0)
    assert_close(theirs, ours)


@pytest.mark.parametrize("name", ["sgd momentum", "adam", "adamw", "rmsprop"])
def test_constraints_and_penalties(name):
    x, y = problem(2, 2)
    layers = [
        {"units": 7, "activation": "softplus", "kernel_constraint": "max_norm", "kernel_regularizer": "l2"},
        {"units": 5, "activation": "sigmoid", "kernel_constraint": "non_neg", "bias_regularizer": "l1",
         "activity_regularizer": "l2", "bias_constraint": "non_neg"},
        {"units": 4, "kernel_constraint": "unit_norm", "use_bias": False},
        {"units": 1, "activation": "sigmoid", "kernel_constraint": "min_max_norm"},
    ]  # fmt: skip
    theirs, ours = both(layers, x, name, "binary_crossentropy")
    found = [
        model.fit(x, y[:, None].astype("float32"), batch_size=ROWS, shuffle=False, verbose=0)
        for model in (theirs, ours)
    ]
    assert_close(theirs, ours)
    assert found[1].history["loss"][0] == pytest.approx(found[0].history["loss"][0], rel=1e-5)


@pytest.mark.parametrize("kind", ["class_weight", "sample_weight"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weights_of_rows_and_classes(kind, name):
    x, y = problem(3, 3)
    weights = {"class_weight": {0: 2.0, 1: 0.3}, "sample_weight": np.random.default_rng(4).uniform(0, 3, len(x))}
    layers = [{"units": 3, "activation": "softmax"}]
    theirs, ours = both(
        layers, x, name, "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"]
    )
    found = [
        model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0, **{kind: weights[kind]}) for model in (theirs, ours)
    ]
    assert_close(theirs, ours)
    assert set(found[0].history) == set(found[1].history) == {"loss", "accuracy", "weighted_accuracy"}
    for key, values in found[0].history.items():
        np.testing.assert_allclose(found[1].history[key], values, rtol=1e-5)


@settings(derandomize=True, deadline=None, max_examples=25, phases=[Phase.generate])
@given(
    loss=st.sampled_from(["mse", "mae", "huber", "binary_crossentropy"]),
    name=st.sampled_from(list(OPTIMIZERS)),
    units=st.lists(st.integers(1, 9), min_size=0, max_size=3),
    activation=st.sampled_from(["tanh", "sigmoid", "softplus", "gelu", "elu", "linear"]),
    regularizer=st.sampled_from([None, "l1", "l2"]),
    constraint=st.sampled_from([None, "max_norm", "unit_norm"]),
    seed=st.integers(0, 99),
)
def test_random_models(loss, name, units, activation, regularizer, constraint, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(20 * ROWS, 4)).astype("float32")
    y = rng.uniform(0, 1, (20 * ROWS, 2)).astype("float32")
    hidden = {"activation": activation, "kernel_regularizer": regularizer, "kernel_constraint": constraint}
    last = {"units": 2, "activation": "sigmoid"}
    theirs, ours = both([{"units": n, **hidden} for n in units] + [last], x, name, loss, metrics=["mse", "mae"])
    found = [model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0) for model in (theirs, ours)]
    # Absolute errors have a gradient of sign: near a tie, one rounding flips a step of size lr; the others are smooth.
    assert_close(theirs, ours, 1e-5 if loss != "mae" and regularizer != "l1" else 2e-3)
    assert set(found[0].history) == set(found[1].history)
    for key, values in found[0].history.items():
        np.testing.assert_allclose(found[1].history[key], values, rtol=1e-4)
    one, other = theirs.evaluate(x, y, verbose=0, return_dict=True), ours.evaluate(x, y, verbose=0, return_dict=True)
    assert other == pytest.approx(one, rel=1e-4)
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), atol=1e-4)


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_train_batch_end", "on_epoch_end"])
def test_evaluations_by_callbacks(hook):
    """In Keras one in the middle of an epoch disturbs the epoch's own numbers; here it does not."""
    x, y = problem(3, 3)
    x, y, weight = x[:96], y[:96], np.random.default_rng(4).random(96).astype("float32")
    layers = [{"units": 7, "activation": "tanh"}, {"units": 3, "activation": "softmax"}]
    seen = []
    pair = both(layers, x, "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["acc"])
    for library, model in zip((keras, fanin), pair, strict=True):
        found = []

        def work(*args, model=model, found=found, **kwargs):
            for more in ({}, {"batch_size": 7}, {"sample_weight": weight}):
                found.append(model.evaluate(x, y, verbose=0, **more))
                found.append(model.evaluate(x, y[:, None], verbose=0, **more))
            found.append([model.predict(x, batch_size=11, verbose=0)[3, 1], 0.0, 0.0])

        callback = type("Works", (library.callbacks.Callback,), {hook: work})()
        history = model.fit(x, y, batch_size=32, epochs=2, shuffle=False, callbacks=[callback], verbose=0).history
        seen.append((np.array(found, "float64"), history))
    np.testing.assert_allclose(*(found for found, _ in seen), rtol=2e-5)
    if "_batch_" not in hook and hook != "on_epoch_begin":
        for name, values in seen[0][1].items():
            np.testing.assert_allclose(seen[1][1][name], values, rtol=2e-5)
    assert_close(*pair)
