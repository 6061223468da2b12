"""Activations, initializers, regularizers and constraints against real Keras 3.15.1 on its torch backend.

Both sides run torch's float32 kernels, so values agree to 1e-6 relative or absolute (8 units in the last place), unless
a test says why more is needed.
"""

import inspect
import json
import math
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from keras.src import activations as keras_activations
from keras.src import constraints as keras_constraints
from keras.src import initializers as keras_initializers
from keras.src import regularizers as keras_regularizers

from fanin import activations, constraints, initializers, regularizers
from fanin.initializers.stft import _COSINES, _OTHERS

fixed = settings(derandomize=True, deadline=None, max_examples=50)

FAMILIES = [
    (activations, keras_activations, keras.activations),
    (initializers, keras_initializers, keras.initializers),
    (regularizers, keras_regularizers, keras.regularizers),
    (constraints, keras_constraints, keras.constraints),
]
INITIALIZERS = sorted({cls.__name__ for cls in keras_initializers.ALL_OBJECTS} - {"Initializer"})

# Many whole numbers, where the functions bend; else thousandths, whose squares do not underflow.
numbers = st.integers(-8, 8).map(float) | st.integers(-8000, 8000).map(lambda i: i / 1000)
factors = st.integers(0, 3000).map(lambda i: i / 1000)
matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=numbers)
tensors = arrays(np.float32, array_shapes(min_dims=1, max_dims=4, max_side=5), elements=numbers)


def close(ours, theirs, rtol=1e-6, atol=1e-6):
    torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), rtol=rtol, atol=atol)


def value_and_gradient(function, array):
    x = torch.tensor(array, requires_grad=True)
    y = function(x)
    # Weights that differ, so that a gradient cannot cancel.
    (y * torch.linspace(0.5, 1.5, y.numel()).reshape(y.shape)).sum().backward()
    return y.detach(), x.grad


def without_null_axes(config):
    return {k: v for k, v in config.items() if not (k in ("input_axes", "output_axes") and v is None)}


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs", "public"), FAMILIES, ids=lambda m: m.__name__)
def test_every_name_that_keras_resolves_means_the_same(ours, theirs, public):
    for name, obj in theirs.ALL_OBJECTS_DICT.items():
        assert ours.family.lookup(name).__name__ == obj.__name__, name


@pytest.mark.parametrize(("ours", "theirs", "public"), FAMILIES, ids=lambda m: m.__name__)
def test_every_public_attribute_of_keras_exists(ours, theirs, public):
    for name in dir(public):
        if not name.startswith("_"):
            assert name in ours.__all__
            assert getattr(ours, name).__name__ == getattr(public, name).__name__


@pytest.mark.parametrize(("ours", "theirs", "public"), FAMILIES, ids=lambda m: m.__name__)
def test_defaults_of_arguments(ours, theirs, public):
    for name, obj in theirs.ALL_OBJECTS_DICT.items():
        found = inspect.signature(ours.family.lookup(name)).parameters
        wanted = inspect.signature(obj).parameters
        assert list(found) == list(wanted), name
        assert [p.default for p in found.values()] == [p.default for p in wanted.values()], name


# --- activations ------------------------------------------------------------------------------------------------------

PLAIN = sorted(set(keras_activations.ALL_OBJECTS_DICT) - {"threshold", "glu", "sparsemax"})


@pytest.mark.filterwarnings("ignore:You are using a softmax")
@pytest.mark.parametrize("name", PLAIN)
@given(array=tensors)
@fixed
def test_activation(name, array):
    ours = value_and_gradient(activations.get(name), array)
    theirs = value_and_gradient(keras.activations.get(name), array)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


@given(array=tensors, slope=numbers, top=st.none() | st.sampled_from([6, 6.0]) | factors, bend=numbers | st.just(0))
@fixed
def test_relu_with_arguments(array, slope, top, bend):
    ours = value_and_gradient(lambda x: activations.relu(x, slope, top, bend), array)
    theirs = value_and_gradient(lambda x: keras.activations.relu(x, slope, top, bend), array)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


@pytest.mark.parametrize("name", ["leaky_relu", "elu", "celu", "squareplus", "hard_shrink", "soft_shrink"])
@given(array=tensors, argument=st.integers(1, 4000).map(lambda i: i / 1000))
@fixed
def test_activation_with_a_number(name, array, argument):
    ours = value_and_gradient(lambda x: getattr(activations, name)(x, argument), array)
    theirs = value_and_gradient(lambda x: getattr(keras.activations, name)(x, argument), array)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


@given(array=tensors, bend=numbers, value=numbers)
@fixed
def test_threshold(array, bend, value):
    ours = value_and_gradient(lambda x: activations.threshold(x, bend, value), array)
    theirs = value_and_gradient(lambda x: keras.activations.threshold(x, bend, value), array)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


@given(array=tensors)
@fixed
def test_gelu_approximate(array):
    ours = value_and_gradient(lambda x: activations.gelu(x, approximate=True), array)
    theirs = value_and_gradient(lambda x: keras.activations.gelu(x, approximate=True), array)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.filterwarnings("ignore:You are using a softmax")
@given(array=tensors, axis=st.sampled_from([-1, 0, None, "all"]))
@fixed
def test_softmax_along_axes(name, array, axis):
    if axis == "all":
        axis = tuple(range(array.ndim))
    ours = value_and_gradient(lambda x: getattr(activations, name)(x, axis=axis), array)
    theirs = value_and_gradient(lambda x: getattr(keras.activations, name)(x, axis=axis), array)
    # The logarithm of a sum of n <= 625 terms, subtracted from numbers up to 8: n / 2 roundings of the sum, amplified 8
    # times by the gradient's sum over all entries.
    for a, b in zip(ours, theirs, strict=True):
        close(a, b, rtol=1e-5, atol=1e-5)


@given(array=matrices)
@fixed
def test_glu(array):
    array = np.concatenate([array, array[:, ::-1]], axis=1)
    ours = value_and_gradient(activations.glu, array)
    theirs = value_and_gradient(keras.activations.glu, array)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


@given(array=matrices)
@fixed
def test_sparsemax_where_keras_is_right(array):
    """With one entry kept. With more, Keras's torch backend adds up the cumulative sums: no distribution results."""
    array[:, 0] += 20
    ours = value_and_gradient(activations.sparsemax, array)
    theirs = value_and_gradient(keras.activations.sparsemax, array)
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)


@pytest.mark.parametrize("name", sorted(keras_activations.ALL_OBJECTS_DICT))
def test_activation_json(name):
    assert activations.serialize(activations.get(name)) == keras.activations.serialize(keras.activations.get(name))


def test_registered_activation_json():
    def rising(x):
        return x

    from fanin.registry import register_keras_serializable

    register_keras_serializable("parity")(rising)
    keras.saving.register_keras_serializable("parity")(rising)
    assert activations.serialize(rising) == keras.activations.serialize(rising)
    assert keras.activations.deserialize(activations.serialize(rising)) is rising
    assert activations.deserialize(keras.activations.serialize(rising)) is rising


# --- initializers -----------------------------------------------------------------------------------------------------

shapes = st.lists(st.integers(1, 9), max_size=4).map(tuple)


@given(
    shape=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    axes=st.none() | st.lists(st.integers(-1, 0), max_size=3),
    others=st.none() | st.lists(st.integers(-1, 0), max_size=3),
)
@fixed
def test_fans(shape, axes, others):
    from keras.src.initializers.random_initializers import compute_fans

    assert initializers.compute_fans(shape, axes, others) == compute_fans(shape, axes, others)


# A draw of Keras's on torch is that of a generator with this seed, so that our numbers are equal too, except those of
# the truncated normal distribution, which each side draws in its own way.
@given(shape=shapes, seed=st.integers(0, 2**32 - 1), mean=numbers, width=factors)
@fixed
def test_seeded_draws_are_the_same_numbers(shape, seed, mean, width):
    close(
        initializers.RandomNormal(mean, width, seed)(shape),
        keras.initializers.RandomNormal(mean, width, seed)(shape),
    )
    close(
        initializers.RandomUniform(mean, mean + width, seed)(shape),
        keras.initializers.RandomUniform(mean, mean + width, seed)(shape),
    )


@given(
    shape=shapes,
    seed=st.integers(0, 2**31),
    scale=st.integers(1, 5000).map(lambda i: i / 1000),
    mode=st.sampled_from(["fan_in", "fan_out", "fan_avg"]),
    distribution=st.sampled_from(["uniform", "untruncated_normal", "UNIFORM"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
@fixed
def test_seeded_variance_scaling_is_the_same_numbers(shape, seed, scale, mode, distribution, dtype):
    ours = initializers.VarianceScaling(scale, mode, distribution, seed)
    theirs = keras.initializers.VarianceScaling(scale, mode, distribution, seed)
    close(ours(shape, dtype), theirs(shape, dtype))
    assert ours.get_config() == without_null_axes(theirs.get_config())


@pytest.mark.parametrize("name", ["glorot_uniform", "he_uniform", "lecun_uniform"])
@given(shape=shapes, seed=st.integers(0, 2**31), axes=st.booleans())
@fixed
def test_seeded_uniform_presets_are_the_same_numbers(name, shape, seed, axes):
    given_axes = {"input_axes": [0], "output_axes": [-1]} if axes and shape else {}
    ours = getattr(initializers, name)(seed=seed, **given_axes)
    theirs = getattr(keras.initializers, name)(seed=seed, **given_axes)
    close(ours(shape), theirs(shape))
    assert ours.get_config() == without_null_axes(theirs.get_config())


@given(shape=st.lists(st.integers(1, 7), min_size=2, max_size=4), seed=st.integers(0, 2**31), gain=numbers)
@fixed
def test_seeded_orthogonal_is_the_same_numbers(shape, seed, gain):
    ours, theirs = initializers.Orthogonal(gain, seed), keras.initializers.Orthogonal(gain, seed)
    close(ours(shape), theirs(shape))
    assert ours.get_config() == theirs.get_config()


def sample_distance(a, b):
    """The largest distance between two empirical distribution functions (Kolmogorov and Smirnov)."""
    a, b = np.sort(a.ravel()), np.sort(b.ravel())
    points = np.concatenate([a, b])
    ranks = np.searchsorted(a, points, side="right") / a.size - np.searchsorted(b, points, side="right") / b.size
    return np.abs(ranks).max()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("TruncatedNormal", {"mean": 1.0, "stddev": 2.0}),
        ("GlorotNormal", {}),
        ("HeNormal", {}),
        ("LecunNormal", {}),
        ("VarianceScaling", {"scale": 3.0, "mode": "fan_out", "distribution": "normal"}),
    ],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_truncated_normals_have_the_same_distribution(name, arguments, seed):
    shape = (200, 300)
    ours = getattr(initializers, name)(seed=seed, **arguments)(shape).numpy()
    theirs = getattr(keras.initializers, name)(seed=seed, **arguments)(shape).numpy()
    # Two equal distributions exceed this in one of 10^6 pairs of samples.
    assert sample_distance(ours, theirs) < math.sqrt(-math.log(1e-6 / 2) / 2) * math.sqrt(2 / ours.size)


@given(shape=shapes, value=numbers, dtype=st.sampled_from(["float32", "float16", "bfloat16", "int32"]))
@fixed
def test_constants(shape, value, dtype):
    close(initializers.Constant(value)(shape, dtype), keras.initializers.Constant(value)(shape, dtype))
    close(initializers.Zeros()(shape, dtype), keras.initializers.Zeros()(shape, dtype))
    close(initializers.Ones()(shape, dtype), keras.initializers.Ones()(shape, dtype))


@given(rows=st.integers(0, 6), columns=st.integers(0, 6), gain=numbers)
@fixed
def test_identity(rows, columns, gain):
    close(initializers.Identity(gain)((rows, columns)), keras.initializers.Identity(gain)((rows, columns)))


@pytest.mark.parametrize("window", [*_COSINES, *_OTHERS, None])
@given(
    length=st.integers(1, 40),
    bins=st.integers(2, 20),
    side=st.sampled_from(["real", "imag"]),
    scaling=st.sampled_from(["density", "spectrum", None]),
    periodic=st.booleans(),
)
@settings(fixed, max_examples=20)
def test_stft(window, length, bins, side, scaling, periodic):
    ours = initializers.STFT(side, window, scaling, periodic)
    theirs = keras.initializers.STFT(side, window, scaling, periodic)
    assert ours.get_config() == theirs.get_config()
    expected = theirs((length, 1, bins)).double()
    if not expected.isfinite().all() or (window and length <= 2):
        return  # a window that sums to 0 or nearly so: both sides divide rounding errors
    # Keras multiplies the angle out in float32: four roundings of a number up to pi * length.
    close(ours((length, 1, bins), "float64"), expected, atol=4 * math.pi * length * 2**-24)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializer_json_both_ways(name):
    ours, theirs = getattr(initializers, name)(), getattr(keras.initializers, name)()
    written, expected = initializers.serialize(ours), keras.initializers.serialize(theirs)
    assert written == {**expected, "config": without_null_axes(expected["config"])}
    assert json.loads(json.dumps(written)) == written
    assert keras.initializers.deserialize(written).get_config() == theirs.get_config()
    assert initializers.deserialize(expected).get_config() == ours.get_config()


def test_values_given_as_an_array_load_in_keras():
    values = np.arange(6, dtype="float32").reshape(2, 3)
    loaded = keras.initializers.deserialize(initializers.serialize(initializers.get(values)))
    close(loaded((2, 3)), values)


def test_keras_seed_generator_is_read():
    theirs = keras.initializers.RandomNormal(seed=keras.random.SeedGenerator(5))
    assert initializers.deserialize(keras.initializers.serialize(theirs)).seed == 5


# --- regularizers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["L1", "L2"])
@given(array=tensors, factor=factors)
@fixed
def test_one_factor(name, array, factor):
    ours, theirs = getattr(regularizers, name)(factor), getattr(keras.regularizers, name)(factor)
    for a, b in zip(value_and_gradient(ours, array), value_and_gradient(theirs, array), strict=True):
        close(a, b)


@given(array=tensors, l1=factors, l2=factors)
@fixed
def test_l1l2(array, l1, l2):
    ours, theirs = regularizers.L1L2(l1, l2), keras.regularizers.L1L2(l1, l2)
    assert ours.get_config() == theirs.get_config()
    if l1 or l2:
        for a, b in zip(value_and_gradient(ours, array), value_and_gradient(theirs, array), strict=True):
            close(a, b)
    else:
        assert ours(torch.tensor(array)) == theirs(torch.tensor(array)) == 0


@given(array=matrices, factor=factors, mode=st.sampled_from(["rows", "columns"]))
@fixed
def test_orthogonal(array, factor, mode):
    axis = 1 if mode == "rows" else 0
    if array.shape[1 - axis] < 2 or not np.abs(array).max(axis=axis).all():
        return  # Keras gives nan for one row, and nan gradients for a row of zeros
    ours = value_and_gradient(regularizers.OrthogonalRegularizer(factor, mode), array)
    theirs = value_and_gradient(keras.regularizers.OrthogonalRegularizer(factor, mode), array)
    close(ours[0], theirs[0])
    # Where a cosine is 0 but for rounding, the sign that the gradient of |cos| takes is arbitrary.
    rows = (array if mode == "rows" else array.T).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if (np.abs(rows @ rows.T) > 1e-5).all():
        # The gradient at a row is divided by its length, here at least 0.001.
        close(ours[1], theirs[1], atol=1e-6 * factor * max(1.0, 1 / np.linalg.norm(array, axis=axis).min()))


@pytest.mark.parametrize("name", ["L1", "L2", "L1L2", "OrthogonalRegularizer"])
def test_regularizer_json_both_ways(name):
    ours, theirs = getattr(regularizers, name)(), getattr(keras.regularizers, name)()
    written, expected = regularizers.serialize(ours), keras.regularizers.serialize(theirs)
    # Keras keeps the factors of L1 and OrthogonalRegularizer as float32 tensors, and writes 0.009999999776482582.
    rounded = {k: float(np.float32(v)) if name in ("L1", "OrthogonalRegularizer") and k != "mode" else v
               for k, v in written["config"].items()}  # fmt: skip
    assert {**written, "config": rounded} == expected
    assert keras.regularizers.deserialize(written).get_config() == theirs.get_config()
    assert regularizers.serialize(regularizers.deserialize(expected)) == expected


# --- constraints ------------------------------------------------------------------------------------------------------

axes = st.sampled_from([0, -1, [0, -1]])


def check_constraint(ours, theirs, array):
    assert constraints.serialize(ours) == keras.constraints.serialize(theirs)
    close(ours(torch.tensor(array)), theirs(torch.tensor(array)))
    loaded = keras.constraints.deserialize(constraints.serialize(ours))
    assert loaded.get_config() == ours.get_config()
    assert constraints.deserialize(keras.constraints.serialize(theirs)).get_config() == ours.get_config()


@given(array=matrices, top=factors | st.integers(0, 4), axis=axes)
@fixed
def test_max_norm(array, top, axis):
    check_constraint(constraints.MaxNorm(top, axis), keras.constraints.MaxNorm(top, axis), array)


@given(array=matrices, axis=axes)
@fixed
def test_unit_norm(array, axis):
    check_constraint(constraints.UnitNorm(axis), keras.constraints.UnitNorm(axis), array)


@given(array=tensors)
@fixed
def test_non_neg(array):
    check_constraint(constraints.NonNeg(), keras.constraints.NonNeg(), array)


@given(array=matrices, bounds=st.tuples(factors, factors), rate=st.integers(0, 100).map(lambda i: i / 100), axis=axes)
@fixed
def test_min_max_norm(array, bounds, rate, axis):
    arguments = (min(bounds), max(bounds), rate, axis)
    check_constraint(constraints.MinMaxNorm(*arguments), keras.constraints.MinMaxNorm(*arguments), array)
