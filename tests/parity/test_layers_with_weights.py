"""BatchNormalization, LayerNormalization, RMSNormalization, Normalization and Embedding against real Keras.

Keras computes both normalizations in float32 under every policy, and takes a variance as E[x^2] - E[x]^2: of its 24
bits it loses as many as x^2 / (variance + epsilon) has. With x below 5 and an epsilon of 0.1 that is a factor of 250:
250 * 2^-24 = 1.5e-5 of the output. The formulas themselves are tested in float64, in tests/layers.
"""

import inspect
import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin.saving import load_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EASY = settings(derandomize=True, deadline=None, max_examples=40, phases=[Phase.generate])
SIDES = {"fanin": (fanin, load_model), "keras": (keras, keras.saving.load_model)}
NOT_WRITTEN = ("quantization_config", "renorm", "renorm_clipping", "renorm_momentum")

initializers = st.sampled_from(["zeros", "ones", "random_normal", "he_normal"])
regularizers = st.sampled_from([None, "l1", "l2"])
constraints = st.sampled_from([None, "non_neg", "max_norm"])
AFFINE = {
    "epsilon": st.sampled_from([0.1, 1.0]),
    "center": st.booleans(),
    "scale": st.booleans(),
    "beta_initializer": initializers,
    "gamma_initializer": initializers,
    "beta_regularizer": regularizers,
    "gamma_regularizer": regularizers,
    "beta_constraint": constraints,
    "gamma_constraint": constraints,
}
ARGUMENTS = {
    "BatchNormalization": st.fixed_dictionaries(
        {
            **AFFINE,
            "momentum": st.sampled_from([0.0, 0.5, 0.99, 1.0]),
            "moving_mean_initializer": initializers,
            "moving_variance_initializer": st.just("ones"),
        }
    ),
    "LayerNormalization": st.fixed_dictionaries(AFFINE),
    "RMSNormalization": st.fixed_dictionaries({"epsilon": st.sampled_from([1e-6, 0.1])}),
    "Normalization": st.fixed_dictionaries({"invert": st.booleans(), "axis": st.sampled_from([-1, 1, None, (-1,)])}),
    "Embedding": st.fixed_dictionaries(
        {
            "input_dim": st.integers(2, 6),
            "output_dim": st.integers(1, 4),
            "embeddings_initializer": st.sampled_from(["uniform", "ones", "glorot_uniform"]),
            "embeddings_regularizer": regularizers,
            "embeddings_constraint": constraints,
            "mask_zero": st.booleans(),
            "activity_regularizer": regularizers,
        }
    ),
}


def normal(rng, shape):
    return rng.normal(1, 1, shape).astype("f4")


def pair(name, arguments, shape, seed):
    """The same layer in Keras and here, with equal random weights."""
    theirs, ours = getattr(keras.layers, name)(**arguments), getattr(fanin.layers, name)(**arguments)
    theirs.build(shape)
    ours.build(shape)
    assert [weight.name for weight in theirs.weights] == [
        found for found, _ in fanin.layers.base.variables.named_weights(ours)
    ]
    assert len(theirs.trainable_weights) == len(ours.trainable_weights)
    rng = np.random.default_rng(seed)
    values = [rng.uniform(0.5, 2.0, weight.shape).astype(weight.dtype) for weight in theirs.get_weights()]
    theirs.set_weights(values)
    ours.set_weights(values)
    return theirs, ours, rng


def check_weights(theirs, ours, bound=2e-6):
    for one, other in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=bound, atol=bound)


def check_call(theirs, ours, x, rng, **options):
    """Equal outputs, penalties and gradients for one call."""
    inputs = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for _ in range(2)]
    expected, found = theirs(inputs[0], **options), ours(inputs[1], **options)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=3e-5, atol=3e-5)
    direction = torch.from_numpy(rng.normal(size=tuple(found.shape))).to(found.dtype)
    gradients = []
    for layer, given_x, y in ((theirs, inputs[0], expected), (ours, inputs[1], found)):
        loss = (y * direction).sum() + sum(layer.losses, torch.zeros(()))
        weights = [getattr(weight, "value", weight) for weight in layer.trainable_weights]
        wanted = [*([given_x] if given_x.requires_grad else []), *weights]
        gradients.append(torch.autograd.grad(loss, wanted, allow_unused=True) if wanted else [])
    assert len(theirs.losses) == len(ours.losses)
    for one, other in zip(*gradients, strict=True):  # sums of up to some hundred terms
        np.testing.assert_allclose(other, one, rtol=2e-4, atol=2e-4)


shapes = st.lists(st.integers(2, 5), min_size=2, max_size=4).map(tuple)


@EASY
@given(arguments=ARGUMENTS["BatchNormalization"], shape=shapes, axis=st.integers(-3, 3), seed=st.integers(0, 2**20))
def test_batch_normalization(arguments, shape, axis, seed):
    axis = axis % len(shape)
    theirs, ours, rng = pair("BatchNormalization", {**arguments, "axis": axis}, shape, seed)
    for training in (True, False, True, True):
        check_call(theirs, ours, normal(rng, shape), rng, training=training)
        check_weights(theirs, ours)
    for layer in (theirs, ours):
        layer.trainable = False
    assert ours.get_config()["trainable"] is theirs.get_config()["trainable"] is False
    check_call(theirs, ours, normal(rng, shape), rng, training=True)
    check_weights(theirs, ours)


@EASY
@given(shape=st.lists(st.integers(2, 5), min_size=3, max_size=4).map(tuple), seed=st.integers(0, 2**20))
def test_batch_normalization_with_a_mask(shape, seed):
    theirs, ours, rng = pair("BatchNormalization", {"epsilon": 0.1}, shape, seed)
    mask = torch.from_numpy(rng.uniform(size=shape[:-1]) > 0.4)
    mask[0] = True
    x = normal(rng, shape)
    inputs = [torch.tensor(x) for _ in range(2)]
    expected, found = theirs(inputs[0], training=True, mask=mask), ours(inputs[1], training=True, mask=mask)
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-5, atol=1e-5)
    check_weights(theirs, ours)


@EASY
@given(arguments=ARGUMENTS["LayerNormalization"], data=st.data(), seed=st.integers(0, 2**20))
def test_layer_normalization(arguments, data, seed):
    """Keras on torch fails where several axes, or one, stand before the last."""
    shape = data.draw(shapes)
    first = data.draw(st.integers(1, len(shape) - 1))
    several = [*range(first, len(shape))]
    far = [1, 3] if len(shape) == 4 else [-1]
    axis = data.draw(st.sampled_from([-1, len(shape) - 1, several, [a - len(shape) for a in several], far]))
    theirs, ours, rng = pair("LayerNormalization", {**arguments, "axis": axis}, shape, seed)
    check_call(theirs, ours, normal(rng, shape), rng)
    assert ours.get_config()["axis"] == theirs.get_config()["axis"]


@EASY
@given(data=st.data(), epsilon=st.sampled_from([1e-6, 0.1]), seed=st.integers(0, 2**20))
def test_rms_normalization(data, epsilon, seed):
    """Keras on torch fails where an axis is not among the last ones."""
    shape = data.draw(shapes)
    first = data.draw(st.integers(1, len(shape) - 1))
    several = [*range(first, len(shape))]
    axis = data.draw(st.sampled_from([-1, len(shape) - 1, several, several[::-1], [a - len(shape) for a in several]]))
    theirs, ours, rng = pair("RMSNormalization", {"epsilon": epsilon, "axis": axis}, shape, seed)
    for _ in range(3):
        check_call(theirs, ours, normal(rng, shape), rng)
    assert ours.get_config()["axis"] == theirs.get_config()["axis"]
    assert ours.supports_masking is theirs.supports_masking is False


@EASY
@given(data=st.data(), seed=st.integers(0, 2**20))
def test_unit_normalization(data, seed):
    shape = data.draw(shapes)
    axes = st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True)
    axis = data.draw(st.one_of(axes, axes.map(tuple), st.integers(-len(shape), len(shape) - 1)))
    theirs, ours, rng = pair("UnitNormalization", {"axis": axis}, shape, seed)
    for _ in range(3):
        check_call(theirs, ours, normal(rng, shape), rng)
    assert ours.get_config()["axis"] == theirs.get_config()["axis"]


@EASY
@given(
    axis=st.sampled_from([-1, 0, 1, (0, 1), (-1,), (1, 2), None]),
    rank=st.integers(3, 4),
    invert=st.booleans(),
    form=st.sampled_from([lambda x: x, torch.from_numpy, lambda x: [(part, part) for part in np.split(x, [1, 1])]]),
    seed=st.integers(0, 2**20),
)
def test_normalization(axis, rank, invert, form, seed):
    """Keras on torch takes batches only where TensorFlow is installed as well; it gets the whole array."""
    rng = np.random.default_rng(seed)
    x = normal(rng, rng.integers(2, 5, rank))
    theirs, ours = (lib.layers.Normalization(axis=axis, invert=invert, name="same") for lib in (keras, fanin))
    theirs.adapt(x)
    ours.adapt(form(x) if axis not in (0, (0, 1)) else x)
    check_weights(theirs, ours, 1e-6)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    mean, variance = ours.get_weights()[:2]
    known = {"axis": axis, "invert": invert, "mean": mean, "variance": variance, "name": "same"}
    theirs, ours = keras.layers.Normalization(**known), fanin.layers.Normalization(**known)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert theirs.weights == ours.weights == []
    assert json.loads(json.dumps(theirs.get_config())) == ours.get_config()


@EASY
@given(
    arguments=ARGUMENTS["Embedding"],
    rank=st.integers(1, 3),
    dtype=st.sampled_from(["int32", "int64", "uint8", "int16", "float32"]),
    seed=st.integers(0, 2**20),
)
def test_embedding(arguments, rank, dtype, seed):
    arguments = {**arguments, "activity_regularizer": None}
    theirs, ours, rng = pair("Embedding", {**arguments}, (None,) * rank, seed)
    x = rng.integers(0, arguments["input_dim"], (3,) * rank).astype(dtype)
    if dtype == "float32":
        np.testing.assert_array_equal(ours(x).detach(), theirs(x).detach())
    else:
        check_call(theirs, ours, x, rng)
    one, other = theirs.compute_mask(torch.from_numpy(x)), ours.compute_mask(torch.from_numpy(x))
    assert (one is None) == (other is None)
    assert one is None or torch.equal(one, other)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_configs_are_equal_but_for_what_older_versions_cannot_read(name):
    @EASY
    @given(arguments=ARGUMENTS[name], trainable=st.booleans())
    def check(arguments, trainable):
        arguments = {**arguments, "name": "same", "trainable": trainable, "dtype": "mixed_bfloat16"}
        theirs = getattr(keras.layers, name)(**arguments).get_config()
        layer = getattr(fanin.layers, name)(**arguments)
        ours = layer.get_config()
        for key in NOT_WRITTEN:
            theirs.pop(key, None)
        theirs, ours = json.loads(json.dumps(theirs)), json.loads(json.dumps(ours))
        assert list(theirs) == list(ours)
        for config in (theirs, ours):  # those of initializers and regularizers are compared in their own tests
            for key, value in config.items():
                if isinstance(value, dict):
                    config[key] = value["class_name"]
        assert theirs == ours
        again = getattr(keras.layers, name).from_config(layer.get_config())
        assert list(getattr(fanin.layers, name).from_config(again.get_config()).get_config()) == list(ours)

    check()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_by_position(name):
    """The same order, as far as both have the argument."""
    theirs = [*inspect.signature(getattr(keras.layers, name).__init__).parameters]
    ours = [*inspect.signature(getattr(fanin.layers, name).__init__).parameters]
    assert [argument for argument in theirs if argument != "quantization_config"] == ours
    defaults = inspect.signature(getattr(keras.layers, name).__init__).parameters
    for argument, parameter in inspect.signature(getattr(fanin.layers, name).__init__).parameters.items():
        assert parameter.default == defaults[argument].default


def test_the_mask_of_an_embedding_reaches_batch_normalization():
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (6, 4)))
    found = []
    for lib in (keras, fanin):
        model = lib.Sequential([lib.layers.Embedding(3, 2, mask_zero=True), lib.layers.BatchNormalization()])
        model(x)
        model.set_weights([np.arange(1, 1 + value.size).reshape(value.shape) for value in model.get_weights()])
        outputs = model(x, training=True)
        found.append([outputs.detach().numpy(), *model.get_weights()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    embeddings, moving_mean = found[1][1], found[1][4]
    counted = embeddings[x.numpy()[x.numpy() != 0]].mean(0)
    np.testing.assert_allclose(moving_mean, 0.99 * np.array([1, 2]) + 0.01 * counted, rtol=1e-6)


# --- models ---------------------------------------------------------------------------------------------------


def model_of(side, names, seed=0):
    """A Sequential with these layers among Dense ones, its weights drawn by numpy."""
    lib = SIDES[side][0]
    rng = np.random.default_rng(seed)
    layers = [lib.Input((3,))]
    for name in names:
        if name == "Embedding":
            layers += [lib.layers.Embedding(6, 4, embeddings_constraint="max_norm"), lib.layers.Flatten()]
        elif name == "Normalization":
            layers.append(lib.layers.Normalization())
            layers[-1].adapt(normal(np.random.default_rng(1), (50, 3)))
        elif name == "given":
            layers.append(lib.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[0.5, 1.0, 2.0]))
        elif name in ("RMSNormalization", "UnitNormalization"):
            layers += [lib.layers.Dense(5, "tanh"), getattr(lib.layers, name)()]
        else:
            layers += [lib.layers.Dense(5, "tanh"), getattr(lib.layers, name)(gamma_regularizer="l2")]
    model = lib.Sequential([*layers, lib.layers.Dense(2)])
    for layer in model.layers:
        if type(layer).__name__ != "Normalization":
            layer.set_weights([rng.uniform(0.2, 1, w.shape).astype("f4") for w in layer.get_weights()])
    return model


def data_for(names, rows=64):
    rng = np.random.default_rng(2)
    x = rng.integers(0, 6, (rows, 3)) if names[0] == "Embedding" else normal(rng, (rows, 3))
    return x, rng.normal(size=(rows, 2)).astype("f4")


MODELS = {
    "batch": ["BatchNormalization"],
    "layer": ["LayerNormalization"],
    "rms": ["RMSNormalization", "UnitNormalization", "RMSNormalization"],
    "both": ["BatchNormalization", "LayerNormalization", "BatchNormalization"],
    "normalization": ["Normalization", "BatchNormalization"],
    "given": ["given", "LayerNormalization"],
    "embedding": ["Embedding", "BatchNormalization"],
}


@pytest.mark.parametrize("name", MODELS)
def test_twenty_steps_of_fit(name):
    """Gradients of float32 differ by some 1e-6 in each step; the rate is 0.01, and the steps add up: 20 * 1e-6."""
    x, y = data_for(MODELS[name], 20 * 16)
    logs, found, outputs = [], [], []
    for side in SIDES:
        model = model_of(side, MODELS[name])
        model.compile(SIDES[side][0].optimizers.SGD(0.01, momentum=0.9), "mse", metrics=["mae"])
        logs.append(model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history)
        found.append(model.get_weights())
        outputs.append(model.predict(x, verbose=0))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
    for key in logs[0]:
        np.testing.assert_allclose(logs[0][key], logs[1][key], rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", SIDES)
def test_the_other_side_reads_an_archive(tmp_path, side, name):
    x, y = data_for(MODELS[name])
    path = str(tmp_path / "m.keras")
    model = model_of(side, MODELS[name])
    model.compile(SIDES[side][0].optimizers.Adam(), "mse")
    model.fit(x, y, verbose=0)
    model.save(path)
    other = "keras" if side == "fanin" else "fanin"
    loaded = SIDES[other][1](path)
    for one, two in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-5)
    again = SIDES[side][1](path)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    for part in (loaded, model):
        part.fit(x, y, shuffle=False, verbose=0)
    for one, two in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_layout_is_that_of_keras(tmp_path, name):
    found = {}
    for side in SIDES:
        keras.utils.clear_session(free_memory=False)
        fanin.config.clear_session(free_memory=False)
        path = tmp_path / f"{side}.keras"
        model_of(side, MODELS[name]).save(path)
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            found[side] = {}
            file.visititems(
                lambda place, obj, side=side: found[side].update(
                    {place: (getattr(obj, "shape", None), str(getattr(obj, "dtype", "")), dict(obj.attrs))}
                )
            )
    assert found["fanin"] == found["keras"]


def test_a_frozen_model_trains_alike():
    x, y = data_for(["BatchNormalization"])
    found = []
    for side in SIDES:
        model = model_of(side, ["BatchNormalization", "BatchNormalization"])
        model.layers[1].trainable = False
        model.compile(SIDES[side][0].optimizers.SGD(0.01), "mse")
        model.fit(x, y, shuffle=False, verbose=0)
        found.append([weight for layer in model.layers for weight in layer.get_weights()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)
