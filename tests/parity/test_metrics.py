"""Metrics against real Keras 3.15.1 on its torch backend.

Keras sums in float32, we in float64: results agree to 1e-5 relative or absolute.
"""

import inspect
import json
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fanin
from fanin import metrics

PARITY = settings(derandomize=True, deadline=None, max_examples=40)
CLASS_METRICS = {
    "SparseCategoricalAccuracy": {},
    "SparseTopKCategoricalAccuracy": {"k": 2},
    "SparseCategoricalCrossentropy": {},
    "CategoricalAccuracy": {},
    "TopKCategoricalAccuracy": {"k": 2},
    "CategoricalCrossentropy": {"label_smoothing": 0.1},
}
NUMBER_METRICS = [
    "MeanSquaredError",
    "MeanAbsoluteError",
    "RootMeanSquaredError",
    "MeanAbsolutePercentageError",
    "MeanSquaredLogarithmicError",
    "LogCoshError",
    "CosineSimilarity",
    "KLDivergence",
    "Poisson",
    "Hinge",
    "SquaredHinge",
    "CategoricalHinge",
]


def near(ours, theirs, tolerance=1e-5):
    np.testing.assert_allclose(ours.numpy(), keras.ops.convert_to_numpy(theirs), rtol=tolerance, atol=tolerance)


def both(name, arguments, batches, tolerance=1e-5):
    """The results of both metrics after the same batches."""
    ours, theirs = getattr(metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)
    for batch in batches:
        ours.update_state(*batch)
        theirs.update_state(*batch)
    near(ours.result(), theirs.result(), tolerance)


def with_weights(draw, rng, batches):
    """The batches as they are, or each with weights per row, some of them 0."""
    if draw(st.booleans()):
        return batches
    return [(y, p, rng.integers(0, 4, len(p)).astype("float32")) for y, p in batches]


@st.composite
def class_batches(draw, one_hot):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    classes = draw(st.integers(2, 6))
    column = draw(st.booleans())
    batches = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(1, 8))
        p = rng.dirichlet(np.ones(classes), rows).astype("float32")
        if draw(st.booleans()):
            p = p.round(1) + 1e-2  # ties
        ids = rng.integers(0, classes, rows)
        y = np.eye(classes, dtype="float32")[ids] if one_hot else ids[:, None] if column else ids
        batches.append((y, p))
    return with_weights(draw, rng, batches)


@st.composite
def yes_batches(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    outputs = draw(st.integers(1, 3))
    on_thresholds = draw(st.booleans())
    batches = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(1, 12))
        p = rng.random((rows, outputs)).astype("float32")
        if on_thresholds:
            p = (p * 4).round() / np.float32(4)
        batches.append((rng.integers(0, 2, (rows, outputs)).astype("float32"), p))
    return with_weights(draw, rng, batches)


@pytest.mark.parametrize("name", CLASS_METRICS)
@PARITY
@given(st.data())
def test_metrics_of_classes(name, data):
    both(name, CLASS_METRICS[name], data.draw(class_batches(not name.startswith("Sparse"))))


@PARITY
@given(yes_batches(), st.sampled_from([0.0, 0.25, 0.5]))
def test_binary_accuracy(batches, threshold):
    both("BinaryAccuracy", {"threshold": threshold}, batches)


@PARITY
@given(yes_batches(), st.booleans(), st.sampled_from([0, 0.2]))
def test_binary_crossentropy(batches, from_logits, label_smoothing):
    both("BinaryCrossentropy", {"from_logits": from_logits, "label_smoothing": label_smoothing}, batches)


@pytest.mark.parametrize("name", NUMBER_METRICS)
@PARITY
@given(yes_batches())
def test_metrics_of_numbers(name, batches):
    both(name, {}, batches)


@st.composite
def number_batches(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    outputs = draw(st.integers(1, 3))
    batches = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(2, 12))
        y = rng.normal(1, 1, (rows, outputs)).astype("float32")
        batches.append((y, (y + rng.normal(0, 0.5, y.shape)).astype("float32")))
    if draw(st.booleans()):
        return [(y, p, (0.5 + rng.integers(0, 4, len(p))).astype("float32")) for y, p in batches]
    return batches


def rounding_of_r2(batches):
    """The tolerance for 1 - residual / variance: Keras's variance is the difference of float32 sums of squares."""
    y = np.concatenate([y for y, *_ in batches]).astype("float64")
    residual = sum(((y - p) ** 2).sum(0) for y, p, *_ in batches)
    spread = y.var(0) * len(y)
    worst = (residual / spread * (y**2).sum(0) / spread).max()
    return 1e-5 * float(max(1.0, worst))


@PARITY
@given(
    number_batches(),
    st.sampled_from([None, "uniform_average", "variance_weighted_average"]),
    st.sampled_from([0, 0, 1, 2]),
)
def test_r2_score(batches, class_aggregation, num_regressors):
    if sum(y.size for y, *_ in batches) < num_regressors + 2:
        num_regressors = 0  # Keras warns, and does not adjust either
    both(
        "R2Score",
        {"class_aggregation": class_aggregation, "num_regressors": num_regressors},
        batches,
        rounding_of_r2(batches),
    )


@PARITY
@given(yes_batches())
def test_exact_accuracy(batches):
    both("Accuracy", {}, batches)


@pytest.mark.parametrize("name", ["Precision", "Recall"])
@PARITY
@given(
    yes_batches(),
    st.sampled_from([None, 0.25, [0.25, 0.7], [0.7, 0.25], [0.0, 0.5, 1.0], [0.0, 0.25, 0.5, 0.75, 1.0]]),
    st.sampled_from([None, None, 1]),
    st.sampled_from([None, 0]),
)
def test_precision_and_recall(name, batches, thresholds, top_k, class_id):
    if (
        batches[0][1].shape[1] > 1
        and top_k
        and any(len(np.unique(row)) < len(row) for _, p, *_ in batches for row in p)
    ):
        top_k = None  # which of two equal predictions is the first of the top k is nobody's promise
    if class_id is not None and len(batches[0]) == 3 and any(len(b[1]) == 1 for b in batches):
        class_id = None  # Keras loses a dimension of the weights of a batch of one row
    both(name, {"thresholds": thresholds, "top_k": top_k, "class_id": class_id}, batches)


COUNTS = ["TruePositives", "FalsePositives", "TrueNegatives", "FalseNegatives"]


@pytest.mark.parametrize("name", COUNTS)
@PARITY
@given(
    yes_batches(),
    st.sampled_from([None, 0.25, [0.25, 0.7], [0.7, 0.25], [0.0, 0.5, 1.0], [0.0, 0.25, 0.5, 0.75, 1.0]]),
)
def test_counts(name, batches, thresholds):
    both(name, {"thresholds": thresholds}, batches)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_have_the_arguments_and_the_result_of_keras(name):
    keras.utils.clear_session(free_memory=False)
    ours, theirs = getattr(metrics, name), getattr(keras.metrics, name)
    assert ours().name == theirs().name
    assert [(p.name, p.default) for p in inspect.signature(ours).parameters.values()] == [
        (p.name, p.default) for p in inspect.signature(theirs).parameters.values()
    ]
    for dtype in (None, "float64"):
        found, expected = (cls(dtype=dtype)([0, 1, 1], [0.2, 0.9, 0.4]) for cls in (ours, theirs))
        assert (found.shape, found.item()) == (expected.shape, expected.item())
    assert ours(dtype="float64").result().dtype == torch.float64  # Keras's variables stay float32


def test_counts_in_fit_are_those_of_keras():
    """Equal weights at first, and batches of one size: the same names and numbers."""
    keras.utils.clear_session(free_memory=False)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype("float32"), rng.integers(0, 2, 60)
    start = [rng.normal(size=(4, 1)).astype("float32"), np.zeros(1, "float32")]
    logs = []
    for lib in (fanin, keras):
        model = lib.Sequential([lib.Input((4,)), lib.layers.Dense(1, "sigmoid")])
        model.set_weights(start)
        counts = [getattr(lib.metrics, name)() for name in COUNTS[:3]] + [lib.metrics.FalseNegatives([0.3, 0.6])]
        model.compile(
            lib.optimizers.SGD(0.1), "binary_crossentropy", metrics=[*counts[:3]], weighted_metrics=[counts[3]]
        )
        logs.append(model.fit(x, y, batch_size=20, shuffle=False, epochs=2, verbose=0).history)
    assert set(logs[0]) == set(logs[1])
    for name, values in logs[0].items():
        np.testing.assert_allclose(np.array(values), np.array(logs[1][name]), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("writer", ["fanin", "keras"])
def test_counts_in_archives(tmp_path, writer):
    sides = {"fanin": (fanin, fanin.saving.load_model), "keras": (keras, keras.saving.load_model)}
    lib, other = sides[writer][0], sides["keras" if writer == "fanin" else "fanin"]
    x, y = np.random.normal(size=(30, 4)).astype("float32"), np.random.randint(0, 2, 30)
    model = lib.Sequential([lib.Input((4,)), lib.layers.Dense(1, "sigmoid")])
    counts = [getattr(lib.metrics, name)(thresholds=0.4, name=name) for name in COUNTS]
    model.compile("sgd", "binary_crossentropy", metrics=counts)
    model.fit(x, y, verbose=0)
    model.save(str(tmp_path / "m.keras"))
    loaded = other[1](str(tmp_path / "m.keras"))
    expected, found = (m.evaluate(x, y, verbose=0, return_dict=True) for m in (model, loaded))
    assert {name: found[name] for name in COUNTS} == {name: expected[name] for name in COUNTS}
    assert sum(expected[name] for name in COUNTS) == 30


@PARITY
@given(
    yes_batches(),
    st.sampled_from(["ROC", "PR", "PRGAIN"]),
    st.sampled_from(["interpolation", "minoring", "majoring"]),
    st.sampled_from([{}, {"num_thresholds": 5}, {"num_thresholds": 2}, {"thresholds": [0.3, 0.9]}]),
    st.booleans(),
)
def test_auc(batches, curve, summation_method, thresholds, from_logits):
    both(
        "AUC",
        {"curve": curve, "summation_method": summation_method, "from_logits": from_logits, **thresholds},
        batches,
    )


@PARITY
@given(
    yes_batches(),
    st.sampled_from(["ROC", "PR", "PRGAIN"]),
    st.sampled_from([{"num_thresholds": 7}, {"thresholds": [0.3, 0.9]}]),
    st.booleans(),
    st.sampled_from([None, [1.0, 0.5, 2.0]]),
)
def test_auc_of_labels(batches, curve, thresholds, apart, label_weights):
    labels = batches[0][1].shape[1]
    if any(len(p) == 1 for _, p, *_ in batches) and len(batches[0]) == 3:
        batches = [(y, p) for y, p, _ in batches]  # Keras loses a dimension of the weights of a batch of one row
    weights = None if label_weights is None else label_weights[:labels]
    both("AUC", {"curve": curve, **thresholds, "multi_label": apart, "label_weights": weights}, batches)


@PARITY
@given(st.integers(0, 10_000), st.booleans())
def test_mean(seed, weighted):
    rng = np.random.default_rng(seed)
    ours, theirs = metrics.Mean(), keras.metrics.Mean()
    for rows in (1, 4):
        values = rng.normal(size=(rows, 3)).astype("float32")
        weights = (rng.random(rows).astype("float32"),) if weighted else ()
        ours.update_state(values, *weights)
        theirs.update_state(values, *weights)
    near(ours.result(), theirs.result())


@pytest.mark.parametrize("name", ["accuracy", "binary_accuracy", "categorical_accuracy", "top_k_categorical_accuracy"])
def test_functions_on_two_of_the_same_shape(name):
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, (9, 7)).astype("float32"), rng.random((9, 7)).astype("float32")
    from keras.src.metrics import accuracy_metrics

    near(getattr(metrics, name)(y, p), getattr(accuracy_metrics, name)(y, p))


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
@pytest.mark.parametrize("name", ["sparse_categorical_accuracy", "sparse_top_k_categorical_accuracy"])
def test_functions_on_class_ids(name, shape):
    rng = np.random.default_rng(0)
    ids, p = rng.integers(0, 7, shape), rng.random((9, 7)).astype("float32")
    theirs = getattr(keras.metrics, name)(ids, p)
    near(getattr(metrics, name)(ids, p), keras.ops.reshape(theirs, (9,)))


CONFIGS = [
    ("Mean", {}),
    ("MeanSquaredError", {"name": "mine"}),
    ("MeanAbsoluteError", {}),
    ("RootMeanSquaredError", {"dtype": "float64"}),
    ("MeanAbsolutePercentageError", {}),
    ("MeanSquaredLogarithmicError", {"name": "mine"}),
    ("LogCoshError", {}),
    ("CosineSimilarity", {}),
    ("KLDivergence", {}),
    ("Poisson", {}),
    ("Hinge", {}),
    ("SquaredHinge", {"dtype": "float64"}),
    ("CategoricalHinge", {}),
    ("R2Score", {"class_aggregation": None, "num_regressors": 2}),
    ("Accuracy", {}),
    ("BinaryAccuracy", {"threshold": 0.7}),
    ("CategoricalAccuracy", {}),
    ("SparseCategoricalAccuracy", {}),
    ("TopKCategoricalAccuracy", {"k": 3}),
    ("SparseTopKCategoricalAccuracy", {}),
    ("SparseTopKCategoricalAccuracy", {"from_sorted_ids": True}),
    ("BinaryCrossentropy", {"from_logits": True}),
    ("CategoricalCrossentropy", {"label_smoothing": 0.5, "axis": 1}),
    ("SparseCategoricalCrossentropy", {"ignore_class": 2}),
    ("Precision", {"name": "p", "thresholds": [0.2, 0.4]}),
    ("Precision", {"name": "p", "thresholds": 0.2, "top_k": 2}),
    ("Recall", {"name": "r", "class_id": 1}),
    ("TruePositives", {"name": "tp"}),
    ("FalsePositives", {"name": "fp", "thresholds": 0.2}),
    ("TrueNegatives", {"name": "tn", "thresholds": [0.2, 0.4], "dtype": "float64"}),
    ("FalseNegatives", {"name": "fn", "thresholds": [0.0, 0.5, 1.0]}),
    ("AUC", {"name": "a", "curve": "PR", "summation_method": "minoring"}),
    ("AUC", {"name": "a", "thresholds": [0.5, 0.25], "from_logits": True}),
    ("AUC", {"name": "a", "multi_label": True, "num_labels": 3}),
]


@pytest.mark.parametrize(("name", "arguments"), CONFIGS)
def test_configs(name, arguments):
    ours, theirs = getattr(metrics, name)(**arguments), getattr(keras.metrics, name)(**arguments)
    assert metrics.serialize(ours) == keras.metrics.serialize(theirs)
    form = json.loads(json.dumps(metrics.serialize(ours)))
    assert keras.metrics.deserialize(form).get_config() == theirs.get_config()
    assert (
        metrics.deserialize(json.loads(json.dumps(keras.metrics.serialize(theirs)))).get_config() == ours.get_config()
    )


def test_every_name_means_the_same():
    from keras.src.metrics import ALL_OBJECTS_DICT

    for name in metrics.family.names():
        assert metrics.family.lookup(name).__name__ == ALL_OBJECTS_DICT[name].__name__


@pytest.mark.parametrize("name", sorted({name for name, _ in CONFIGS} - {"Mean", *COUNTS}))
def test_directions(name):
    """Keras's counts have none."""
    theirs = keras.metrics.get(name)._direction
    assert metrics.direction(metrics.get(name)) == {"up": "max", "down": "min"}[theirs]


def test_the_axis_of_a_cosine():
    rng = np.random.default_rng(0)
    y, p = rng.normal(size=(5, 4, 3)).astype("float32"), rng.normal(size=(5, 4, 3)).astype("float32")
    both("CosineSimilarity", {"axis": 1}, [(y, p)])
    form = metrics.serialize(metrics.CosineSimilarity(axis=1))
    near(keras.metrics.deserialize(form)(y, p).detach(), metrics.deserialize(form)(y, p))


@pytest.mark.parametrize("y_shape", [(8,), (8, 1), (8, 4), (8, 3, 4), (8, 3), (8, 3, 1)])
@pytest.mark.parametrize("output_shape", [(8, 1), (8, 4), (8, 3, 4), (8, 3, 1)])
def test_accuracy_is_chosen_as_keras_does(y_shape, output_shape):
    from keras.src.trainers.compile_utils import get_metric

    theirs = get_metric("acc", np.zeros(y_shape), np.zeros(output_shape))
    ours = metrics.resolve("acc", (None, *output_shape[1:]), y_shape)
    assert (type(ours).__name__, ours.name) == (type(theirs).__name__, theirs.name)


def test_label_weights_that_keras_wrote_as_a_tensor():
    theirs = keras.metrics.AUC(multi_label=True, label_weights=[1.0, 0.5], name="a")
    form = json.loads(json.dumps(keras.metrics.serialize(theirs)))
    assert metrics.deserialize(form).label_weights == [1.0, 0.5]
    ours = metrics.AUC(multi_label=True, label_weights=[1.0, 0.5], name="a")
    back = keras.metrics.deserialize(json.loads(json.dumps(metrics.serialize(ours))))
    assert back.label_weights.tolist() == [1.0, 0.5]
