"""Losses, factors and metrics of several outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fanin import Input, Model, Sequential, losses
from fanin.errors import DataError
from fanin.layers import Dense
from fanin.metrics import MeanAbsoluteError


def model(outputs=list, name="two"):
    x = Input((3,), name="x")
    a, b = Dense(2, name="a", kernel_initializer="ones")(x), Dense(1, name="b", kernel_initializer="ones")(x)
    return Model(x, [a, b] if outputs is list else {"left": a, "right": b}, name=name)


X = np.arange(12, dtype="float32").reshape(4, 3) / 10
Y = np.ones((4, 2), "float32"), np.zeros((4, 1), "float32")
A, B = X.sum(1, keepdims=True).repeat(2, 1), X.sum(1, keepdims=True)
MSE_A, MAE_B = float(((A - Y[0]) ** 2).mean()), float(np.abs(B - Y[1]).mean())


@pytest.mark.parametrize("outputs", [list, dict])
@pytest.mark.parametrize("form", ["list", "dict"])
def test_losses_factors_and_metrics_by_place_or_name(outputs, form):
    made = model(outputs)
    names = ["a", "b"] if outputs is list else ["left", "right"]
    by = (lambda *items: list(items)) if form == "list" else (lambda *items: dict(zip(names, items, strict=True)))
    made.compile("sgd", loss=by("mse", "mae"), loss_weights=by(2.0, 0.5), metrics=by(["mae"], ["mse", "mae"]))
    y = list(Y) if form == "list" else dict(zip(names, Y, strict=True))
    found = made.evaluate(X, y, verbose=0, return_dict=True)
    first, second = names
    assert list(found) == ["loss", f"{first}_loss", f"{second}_loss", f"{first}_mae", f"{second}_mse", f"{second}_mae"]
    assert found["loss"] == pytest.approx(2 * MSE_A + 0.5 * MAE_B, rel=1e-6)
    assert found[f"{first}_loss"] == pytest.approx(MSE_A, rel=1e-6)
    assert found[f"{second}_loss"] == found[f"{second}_mae"] == pytest.approx(MAE_B, rel=1e-6)
    assert made.metrics_names == list(found)
    assert made.evaluate(X, y, verbose=0) == pytest.approx(list(found.values()))


def test_one_loss_is_for_all_outputs():
    made = model()
    made.compile("sgd", "mse")
    assert list(made.evaluate(X, list(Y), verbose=0, return_dict=True)) == ["loss", "a_loss", "b_loss"]


def test_an_output_without_a_loss_needs_no_targets():
    made = model()
    for loss, y in (([None, "mae"], Y[1]), ({"b": "mae"}, {"b": Y[1]}), ([None, "mae"], [Y[0], Y[1]]),
                    ({"b": "mae"}, [Y[1]])):  # fmt: skip
        made.compile("sgd", loss)
        y = [y] if isinstance(y, np.ndarray) else y
        found = made.evaluate(X, y, verbose=0, return_dict=True)
        assert found == {"loss": pytest.approx(MAE_B, rel=1e-6)}


def test_sample_weights_for_all_or_for_each():
    made = model()
    made.compile("sgd", ["mse", "mae"], weighted_metrics=[[], ["mae"]])
    weight = np.array([1.0, 0.0, 2.0, 1.0], "float32")
    mse = float((((A - Y[0]) ** 2).mean(1) * weight).mean())
    mae = float((np.abs(B - Y[1]).mean(1) * weight).mean())
    for given in (weight, [weight, weight], {"a": weight, "b": weight}):
        found = made.evaluate(X, list(Y), sample_weight=given, verbose=0, return_dict=True)
        assert found["loss"] == pytest.approx(mse + mae, rel=1e-6)
        assert found["b_mae"] == pytest.approx(mae * 4 / weight.sum(), rel=1e-6)
    found = made.evaluate(X, list(Y), sample_weight={"b": weight}, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(MSE_A + mae, rel=1e-6)


def test_the_only_output_has_no_name_in_front():
    made = Sequential([Input((3,)), Dense(1, name="only")])
    for loss, metrics in (("mse", ["mae"]), (["mse"], ["mae"]), ({"only": "mse"}, {"only": ["mae"]})):
        made.compile("sgd", loss, metrics=metrics)
        for y in (Y[1], [Y[1]], {"only": Y[1]}):
            assert list(made.evaluate(X, y, verbose=0, return_dict=True)) == ["loss", "mae"]


def test_names_of_weighted_metrics():
    made = model()
    made.compile("sgd", "mse", metrics=[["mae", "mae"], None], weighted_metrics={"a": ["mae"], "b": ["mae"]})
    found = made.evaluate(X, list(Y), verbose=0, return_dict=True)
    assert list(found)[3:] == ["a_mae", "a_mae_1", "a_weighted_mae", "b_mae"]


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_one_metric_object_for_several_places_keeps_the_order_of_names(run_eagerly):
    made, one = model(), MeanAbsoluteError(name="mae")
    made.compile("sgd", "mse", metrics=[[one, "mse"], [one]], weighted_metrics=[[one], None], run_eagerly=run_eagerly)
    weight = np.array([1, 0, 0, 0], "float32")
    found = made.evaluate(X, list(Y), sample_weight=weight, verbose=0)
    by_name = dict(zip(made.metrics_names, found, strict=True))
    assert by_name == made.evaluate(X, list(Y), sample_weight=weight, verbose=0, return_dict=True)
    expected = {"a_mae": np.abs(A - Y[0]).mean(), "a_mse": MSE_A, "b_mae": MAE_B, "a_weighted_mae": abs(A[0, 0] - 1)}
    assert {name: by_name[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"loss": ["mse"]}, "loss has 1 entries, the model has 2 outputs"),
        ({"loss": {"c": "mse"}}, r"loss names \['c'\]; the outputs are \['a', 'b'\]"),
        ({"loss": "mse", "metrics": ["mae", "mse", "mae"]}, "metrics has 3 entries"),
        ({"loss": "mse", "metrics": "mae"}, "give metrics for each of the outputs"),
        ({"loss": "mse", "loss_weights": [1.0]}, "loss_weights has 1 entries"),
        ({"loss": "mse", "loss_weights": ["much", 1.0]}, "loss_weights are numbers"),
        ({"loss": ["mse", "nonsense"]}, "nonsense"),
        ({"loss": "mse", "weighted_metrics": {"b": ["nonsense"]}}, "nonsense"),
    ],
)
def test_what_fits_no_output_fails_at_compile(arguments, words):
    with pytest.raises(ValueError, match=words):
        model().compile("sgd", **arguments)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "y is missing"),
        ([Y[0], Y[1], Y[1]], "y has 3 entries"),
        ({"a": Y[0]}, r"y lacks the targets of \['b'\]"),
        ([Y[0], np.full((4, 1), np.nan)], r"y\[1\]: row 0"),
        ([Y[0], np.zeros((4, 5))], "b"),
        ([Y[0], Y[1][:2]], "rows"),
    ],
)
def test_targets_that_do_not_fit_are_refused_before_a_weight_changes(y, words):
    made = model()
    made.compile("sgd", "mse")
    before = made.get_weights()
    with pytest.raises((DataError, ValueError), match=words):
        made.fit(X, y, verbose=0)
    for weight, old in zip(made.get_weights(), before, strict=True):
        assert np.array_equal(weight, old)


def test_fit_gives_a_history_of_each_output():
    made = model(dict)
    made.compile("sgd", {"left": "mse", "right": "mae"}, metrics={"right": ["mse"]})
    y = {"left": Y[0], "right": Y[1]}
    history = made.fit(X, y, epochs=2, batch_size=2, validation_data=(X, y), verbose=0).history
    assert list(history) == ["loss", "left_loss", "right_loss", "right_mse", "val_loss", "val_left_loss",
                             "val_right_loss", "val_right_mse"]  # fmt: skip
    assert history["loss"][0] == pytest.approx(history["left_loss"][0] + history["right_loss"][0], rel=1e-6)
    assert set(made.predict(X, verbose=0)) == {"left", "right"}


def test_crossentropy_and_accuracy_are_chosen_for_each_output():
    x = Input((3,))
    made = Model(x, [Dense(4, activation="softmax", name="kind")(x), Dense(1, activation="sigmoid", name="yes")(x)])
    made.compile("sgd", "crossentropy", metrics=[["accuracy"], ["accuracy"]])
    y = [np.array([0, 3, 1, 2]), np.array([0.0, 1.0, 1.0, 0.0])]
    made.fit(X, y, verbose=0)
    kinds = [type(output.loss).__name__ for output in made._compiled().outputs]
    assert kinds == ["SparseCategoricalCrossentropy", "BinaryCrossentropy"]
    assert made.metrics_names == ["loss", "kind_loss", "yes_loss", "kind_accuracy", "yes_accuracy"]


@pytest.mark.parametrize("kind", ["Binary", "Categorical", "SparseCategorical"])
def test_the_metric_crossentropy_counts_logits_as_the_loss_does(kind):
    loss = getattr(losses, f"{kind}Crossentropy")(from_logits=True)
    made = Sequential([Input((3,)), Dense(1 if kind == "Binary" else 4)])
    made.compile("sgd", loss, metrics=["crossentropy"], weighted_metrics=["ce"])
    y = {"Binary": np.array([0.0, 1, 1, 0]), "Categorical": np.eye(4), "SparseCategorical": np.arange(4)}[kind]
    scores = made.evaluate(X, y, verbose=0)
    assert scores[1:] == pytest.approx([scores[0]] * 2)


def test_batches_from_a_loader_and_a_generator():
    made = model()
    made.compile("sgd", ["mse", "mae"])
    whole = made.evaluate(X, list(Y), batch_size=2, verbose=0)
    batches = [(torch.from_numpy(X[i : i + 2]), [torch.from_numpy(part[i : i + 2]) for part in Y]) for i in (0, 2)]
    assert made.evaluate(iter(batches), verbose=0) == pytest.approx(whole)


def test_a_subclass_with_several_outputs():
    class Pair(Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = Dense(2), Dense(1)

        def call(self, inputs):
            return self.a(inputs), self.b(inputs)

    made = Pair()
    made.compile("sgd", ["mse", "mae"])
    assert list(made.evaluate(X, list(Y), verbose=0, return_dict=True)) == ["loss", "output_0_loss", "output_1_loss"]
    made.fit(X, list(Y), verbose=0)
