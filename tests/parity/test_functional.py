"""Functional models with several inputs and outputs: 30 steps of `fit` as real Keras does them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fanin

RNG = np.random.default_rng(0)
ROWS = 30
X = {"a": RNG.normal(size=(ROWS, 5)).astype("float32"), "b": RNG.normal(size=(ROWS, 3)).astype("float32")}
Y = {
    "price": RNG.normal(size=(ROWS, 1)).astype("float32"),
    "kind": RNG.integers(0, 4, size=(ROWS,)),
    "sold": RNG.integers(0, 2, size=(ROWS, 1)).astype("float32"),
}
WEIGHTS = {name: RNG.uniform(0.5, 2, size=(ROWS,)).astype("float32") for name in Y}


def build(k, outputs=list):
    a, b = k.Input((5,), name="a"), k.Input((3,), name="b")
    shared = k.layers.Dense(4, activation="tanh", kernel_regularizer="l2", name="shared")
    left = shared(k.layers.Dense(5, activation="relu", name="first")(a))
    right = shared(k.layers.Dense(5, name="second", activity_regularizer="l2")(b))
    both = k.layers.Concatenate(name="both")([left, right, k.layers.Add(name="sum")([left, right])])
    ends = {
        "price": k.layers.Dense(1, name="price")(both),
        "kind": k.layers.Dense(4, activation="softmax", name="kind")(both),
        "sold": k.layers.Dense(1, activation="sigmoid", name="sold")(left),
    }
    return k.Model([a, b], list(ends.values()) if outputs is list else ends)


def by_place(values):
    return list(values.values())


def histories(arguments, fit, outputs=list):
    """What both give, from equal weights, over 30 steps of 10 rows."""
    models = [build(k, outputs) for k in (fanin, keras)]
    models[1].set_weights(models[0].get_weights())
    found = []
    for k, model in zip((fanin, keras), models, strict=True):
        model.compile(optimizer=k.optimizers.Adam(0.01), **arguments)
        x = [X["a"], X["b"]]
        found.append(model.fit(x, batch_size=10, epochs=10, shuffle=False, verbose=0, **fit).history)
    for ours, theirs in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-4)
    return found


def check(ours, theirs):
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)


LOSSES = {"price": "mse", "kind": "sparse_categorical_crossentropy", "sold": "binary_crossentropy"}


@pytest.mark.parametrize("form", ["list", "dict"])
def test_losses_weights_and_metrics_by_name_and_place(form):
    as_given = by_place if form == "list" else dict
    arguments = {
        "loss": as_given(LOSSES),
        "loss_weights": as_given({"price": 0.5, "kind": 2.0, "sold": 1.0}),
        "metrics": as_given({"price": ["mae"], "kind": ["accuracy"], "sold": ["accuracy"]}),
    }
    fit = {"y": as_given(Y), "validation_data": ([X["a"], X["b"]], as_given(Y))}
    check(*histories(arguments, fit, dict if form == "dict" else list))


def test_sample_weights_of_each_output():
    arguments = {"loss": by_place(LOSSES), "weighted_metrics": [["mae"], ["accuracy"], ["accuracy"]]}
    check(*histories(arguments, {"y": by_place(Y), "sample_weight": by_place(WEIGHTS)}))


@settings(derandomize=True, deadline=None, phases=[Phase.generate], max_examples=8)
@given(st.data())
def test_random_choices(data):
    factors = {name: data.draw(st.sampled_from([0.1, 1.0, 3.0])) for name in Y}
    losses = {
        "price": data.draw(st.sampled_from(["mse", "huber"])),
        "kind": "sparse_categorical_crossentropy",
        "sold": data.draw(st.sampled_from(["mse", "binary_crossentropy"])),
    }
    metrics = {name: data.draw(st.sampled_from([[], ["mse"] if name != "kind" else ["accuracy"]])) for name in Y}
    arguments = {"loss": by_place(losses), "loss_weights": by_place(factors), "metrics": by_place(metrics)}
    fit = {"y": by_place(Y)}
    if data.draw(st.booleans()):
        fit["sample_weight"] = by_place(WEIGHTS)
    check(*histories(arguments, fit))


def test_layers_come_in_keras_order_and_json_goes_both_ways():
    ours, theirs = build(fanin), build(keras)
    assert [layer.name for layer in ours.layers] == [layer.name for layer in theirs.layers]
    assert [tuple(w.shape) for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    again = keras.models.model_from_json(ours.to_json())
    again.set_weights(ours.get_weights())
    back = fanin.models.model_from_json(theirs.to_json())
    back.set_weights(ours.get_weights())
    x = [X["a"], X["b"]]
    for one, two, three in zip(ours.predict(x, verbose=0), again.predict(x, verbose=0), back.predict(x, verbose=0),
                               strict=True):  # fmt: skip
        np.testing.assert_allclose(one, two, atol=1e-6)
        np.testing.assert_array_equal(one, three)


@settings(derandomize=True, deadline=None, phases=[Phase.generate], max_examples=25)
@given(st.data())
def test_the_order_of_layers_in_random_graphs(data):
    """Files count layers by this order, so it must be Keras's whatever the graph."""
    inputs = data.draw(st.integers(1, 3))
    plan = []
    for number in range(data.draw(st.integers(1, 10))):
        known = inputs + number
        plan.append(([data.draw(st.integers(0, known - 1)) for _ in range(data.draw(st.integers(1, 3)))],
                     data.draw(st.integers(0, number))))  # fmt: skip
    ends = data.draw(st.lists(st.integers(0, inputs + len(plan) - 1), min_size=1, max_size=3, unique=True))
    orders = []
    for k in (fanin, keras):
        symbols = [k.Input((2,), name=f"in{i}") for i in range(inputs)]
        layers = {}
        sources = list(symbols)
        for sources_of, owner in plan:
            kind = (owner, len(sources_of) > 1)
            if kind not in layers:  # shared by all calls that draw it
                name = f"l{owner}_{len(sources_of) > 1}"
                layers[kind] = k.layers.Add(name=name) if len(sources_of) > 1 else k.layers.Dense(2, name=name)
            picked = [symbols[place] for place in sources_of]
            symbols.append(layers[kind](picked if len(picked) > 1 else picked[0]))
        model = k.Model(sources, [symbols[end] for end in ends])
        orders.append([layer.name for layer in model.layers])
    assert orders[0] == orders[1]
