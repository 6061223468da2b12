"""Losses against real Keras 3.15.1 on its torch backend.

Both sides compute in float32; values agree to 2e-6 relative or absolute (16 units in the last place: sums are taken in
another order), unless a test says why more is needed.
"""

import json
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fanin import losses

PARITY = settings(derandomize=True, deadline=None, max_examples=150)
REDUCTIONS = ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None]
FUNCTIONS = {
    "MeanSquaredError": "mean_squared_error",
    "MeanAbsoluteError": "mean_absolute_error",
    "Huber": "huber",
    "BinaryCrossentropy": "binary_crossentropy",
    "MeanAbsolutePercentageError": "mean_absolute_percentage_error",
    "MeanSquaredLogarithmicError": "mean_squared_logarithmic_error",
    "LogCosh": "log_cosh",
    "Poisson": "poisson",
    "Hinge": "hinge",
    "SquaredHinge": "squared_hinge",
    "CosineSimilarity": "cosine_similarity",
    "KLDivergence": "kl_divergence",
    "CategoricalHinge": "categorical_hinge",
    "CategoricalCrossentropy": "categorical_crossentropy",
    "SparseCategoricalCrossentropy": "sparse_categorical_crossentropy",
}
NAMES = list(FUNCTIONS)
PAIRS = NAMES[: NAMES.index("CosineSimilarity")]  # each output has its own value


def near(ours, theirs, rtol=2e-6):
    np.testing.assert_allclose(
        ours.detach().numpy(), keras.ops.convert_to_numpy(theirs), rtol=rtol, atol=rtol, equal_nan=True
    )


@st.composite
def cases(draw):
    """A loss by name with arguments, and targets and predictions that it takes."""
    name = draw(st.sampled_from(NAMES))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    inner = draw(st.sampled_from([(), (), (3,)]))
    batch, classes = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    arguments = {}
    shape = (batch, *inner, classes)
    if name == "Huber":
        arguments["delta"] = draw(st.sampled_from([0.1, 1.0, 2.5]))
    if "entropy" in name:
        arguments["from_logits"] = draw(st.booleans())
    if name in ("BinaryCrossentropy", "CategoricalCrossentropy"):
        arguments["label_smoothing"] = draw(st.sampled_from([0.0, 0.1, 1.0]))
    if name == "CosineSimilarity":
        arguments["axis"] = draw(st.sampled_from([-1, 1]))
    y = p = rng.normal(0, 3, shape).astype("float32")
    if "entropy" in name and not arguments["from_logits"]:
        p = rng.random(shape).astype("float32")
        p[rng.random(shape) < 0.2] = draw(st.sampled_from([0.0, 1.0, 1e-9]))
        p[..., 0] += 1e-3  # a row of zeros has no probabilities
        if name == "BinaryCrossentropy":
            p = p.clip(0, 1)
    if name == "BinaryCrossentropy":
        y = rng.integers(0, 2, shape).astype(draw(st.sampled_from(["float32", "int64", "bool"])))
    elif name == "CategoricalCrossentropy":
        y = rng.dirichlet(np.ones(classes), shape[:-1]).astype("float32")
    elif name == "SparseCategoricalCrossentropy":
        y = rng.integers(0, classes, shape[:-1])
        if draw(st.booleans()):
            y = y[..., None]
        if draw(st.booleans()):
            arguments["ignore_class"] = draw(st.integers(-1, 1))
            y = np.where(rng.random(y.shape) < 0.3, arguments["ignore_class"], y)
    elif name in ("Hinge", "SquaredHinge"):
        y = rng.choice(draw(st.sampled_from([(0, 1), (-1, 1), (-1, 0, 1), (0.5, 1)])), shape).astype("float32")
    elif name == "CategoricalHinge":
        y = np.eye(classes, dtype="float32")[rng.integers(0, classes, shape[:-1])]
    elif name == "KLDivergence":
        y, p = (rng.dirichlet(np.ones(classes), shape[:-1]).astype("float32") for _ in range(2))
        y[rng.random(shape) < 0.2] = draw(st.sampled_from([0.0, 1.0, -0.1]))
        p[rng.random(shape) < 0.2] = draw(st.sampled_from([0.0, 1.0, 1e-9, 1.5]))
    elif name == "Poisson":
        y = rng.poisson(2, shape).astype(draw(st.sampled_from(["float32", "int64"])))
        p = rng.gamma(2, 1, shape).astype("float32")
        p[rng.random(shape) < 0.2] = 0.0
    else:
        y = rng.normal(0, 3, shape).astype("float32")
    if name == "MeanAbsolutePercentageError":
        y[rng.random(shape) < 0.1] = 0.0
    if name == "MeanSquaredLogarithmicError":
        y[rng.random(shape) < 0.2], p[rng.random(shape) < 0.2] = 0.0, 0.0
    return name, arguments, y, p, rng


@PARITY
@given(cases(), st.sampled_from(REDUCTIONS), st.sampled_from(["no", "row", "column", "value"]))
def test_values(case, reduction, weights):
    name, arguments, y, p, rng = case
    ours = getattr(losses, name)(reduction=reduction, **arguments)
    theirs = getattr(keras.losses, name)(reduction=reduction, **arguments)
    each = tuple(np.delete(p.shape, arguments.get("axis", -1)))
    shape = {"no": None, "row": p.shape[:1], "column": (len(p), 1), "value": each}[weights]
    if shape == p.shape[:1] and p.ndim > 2:
        shape = (len(p), 1)  # Keras broadcasts (B,) against (B, T) from the right
    if shape is not None and p.ndim > 2 and (reduction == "mean_with_sample_weight" or "ignore_class" in arguments):
        shape = each  # Keras divides by the sum over fewer weights than values, and fails with a mask
    w = None if shape is None else rng.random(shape).astype("float32")
    theirs = theirs(y, p, w)
    if weights == "column" and reduction in ("none", None):
        theirs = keras.ops.reshape(theirs, each)  # Keras makes a column of the values, too
    near(ours(y, p, w), theirs)


@PARITY
@given(cases())
def test_gradients(case):
    name, arguments, y, p, _ = case
    found = []
    for module in (losses, keras.losses):
        pred = torch.tensor(p, requires_grad=True)
        getattr(module, name)(**arguments)(torch.tensor(y), pred).backward()
        found.append(pred.grad)
    # Relative to the largest gradient: 1 / p reaches 1e7 for the smallest probabilities.
    scale = float(found[1].abs().nan_to_num(0).max()) or 1.0
    np.testing.assert_allclose(found[0] / scale, found[1] / scale, rtol=1e-5, atol=1e-6)


@PARITY
@given(cases())
def test_functions(case):
    name, arguments, y, p, _ = case
    function = FUNCTIONS[name]
    near(
        getattr(losses, function)(y, p, **arguments),
        getattr(keras.losses, function)(torch.tensor(y), torch.tensor(p), **arguments),
    )


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shapes", [((4,), (4, 1)), ((4, 1), (4,)), ((4, 3, 1), (4, 3))])
def test_a_last_dimension_of_one(name, shapes):
    y, p = (np.random.rand(*shape).astype("float32") for shape in shapes)
    near(getattr(losses, name)()(y, p), getattr(keras.losses, name)()(y, p))


@pytest.mark.parametrize("name", NAMES)
def test_configs(name):
    ours, theirs = getattr(losses, name)(), getattr(keras.losses, name)()
    assert losses.serialize(ours) == keras.losses.serialize(theirs)
    there = keras.losses.deserialize(json.loads(json.dumps(losses.serialize(ours))))
    assert there.get_config() == theirs.get_config()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Huber", {"delta": 2.0}),
        ("SparseCategoricalCrossentropy", {"axis": 1, "from_logits": True, "ignore_class": 3}),
        ("BinaryCrossentropy", {"label_smoothing": 0.5, "axis": 1, "reduction": "sum"}),
        ("MeanSquaredError", {"dtype": "float64", "name": "mine"}),
        ("CosineSimilarity", {"axis": 1, "reduction": "sum"}),
        ("LogCosh", {"reduction": "none"}),
    ],
)
def test_keras_reads_our_configs_and_we_read_its(name, arguments):
    ours = getattr(losses, name)(**arguments)
    there = keras.losses.deserialize(json.loads(json.dumps(losses.serialize(ours))))
    y, p = (np.random.rand(4, 4, 2).astype("float32") for _ in range(2))
    if name == "SparseCategoricalCrossentropy":
        y = np.random.randint(0, 3, (4, 2))
    near(ours(y, p), there(y, p))
    again = losses.deserialize(json.loads(json.dumps(keras.losses.serialize(there))))
    assert again.reduction == ours.reduction
    assert again.name == ours.name


@pytest.mark.parametrize(
    "name",
    [*["mse", "MSE", "mae", "MAE", "bce", "BCE", "mape", "MAPE", "msle", "MSLE", "kld", "KLD"], *FUNCTIONS.values()],
)
def test_names(name):
    assert losses.get(name).__name__ == keras.losses.get(name).__name__


def test_every_name_means_the_same():
    from keras.src.losses import ALL_OBJECTS_DICT

    for name, obj in ALL_OBJECTS_DICT.items():
        if name in losses.family.names():
            assert losses.family.lookup(name).__name__ == obj.__name__
    assert set(losses.family.names()) - set(ALL_OBJECTS_DICT) == {"loss", "loss_function_wrapper"}
