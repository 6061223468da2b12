"""Models to be written by one library and read by the other, with their data.

Each is built from whatever is handed in as `lib`, `keras` or `fanin`, by what both have: layers, and operators on
symbolic tensors. Needs numpy alone, so that it runs where only one of the two is installed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

ROWS = 12
OPTIMIZERS = [
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9}),
    ("Adam", {"learning_rate": 0.001}),
    ("RMSprop", {"learning_rate": 0.001}),
    ("AdamW", {"learning_rate": 0.001, "weight_decay": 0.1}),
    ("SGD", {"learning_rate": 0.05}),
]


class Ids(NamedTuple):
    """An input of integers below `count`; 0 is among them."""

    shape: tuple
    count: int


class Case(NamedTuple):
    """One model.

    Attributes:
        build: from the library to the model.
        inputs: shapes without the batch, in the structure of the model's inputs.
        random: whether training draws random numbers.
        by_call: whether to predict by a call of the model: Keras's `predict` overrules what a call says of training.
    """

    build: Callable[[Any], Any]
    inputs: Any
    random: bool = False
    by_call: bool = False


CASES: dict[str, Case] = {}


def case(*inputs, **properties):
    """Enter a function that builds a model, under its name; one input is given alone, several as a list."""

    def enter(build):
        CASES[build.__name__] = Case(build, inputs[0] if len(inputs) == 1 else list(inputs), **properties)
        return build

    return enter


def build(lib, name):
    """The model, its first weights drawn anew."""
    lib.utils.set_random_seed(zlib.crc32(name.encode()))
    return CASES[name].build(lib)


def draw(name, spec, numbers):
    """Arrays in the structure of `spec`."""
    if isinstance(spec, dict):
        return {key: draw(name, value, numbers) for key, value in spec.items()}
    if isinstance(spec, list):
        return [draw(name, value, numbers) for value in spec]
    if isinstance(spec, Ids):
        return numbers.integers(0, spec.count, size=(ROWS, *spec.shape)).astype("int32")
    values = numbers.normal(size=(ROWS, *spec)).astype("float32")
    if len(spec) == 2:
        values[:, 0][numbers.uniform(size=ROWS) < 0.5] = 0.0  # for Masking
    return values


def inputs(name):
    """The model's inputs: the same in every process."""
    return draw(name, CASES[name].inputs, np.random.default_rng(zlib.crc32(name.encode())))


def like(structure, function):
    """`function` of each array; dicts in the order of their keys."""
    if isinstance(structure, dict):
        return {key: like(structure[key], function) for key in sorted(structure)}
    if isinstance(structure, (list, tuple)):
        return [like(value, function) for value in structure]
    return function(structure)


_targets: dict[str, Any] = {}


def targets(name, model):
    """Random targets in the structure of what the model predicts: the same in every process."""
    if name not in _targets:
        numbers = np.random.default_rng(zlib.crc32(name.encode()) + 1)
        predictions = model.predict(inputs(name), verbose=0)
        _targets[name] = like(predictions, lambda array: numbers.normal(size=array.shape).astype("float32"))
    return _targets[name]


def predict(name, model):
    """The predictions, as a flat list of arrays, dicts by their keys."""
    found = model(inputs(name)) if CASES[name].by_call else model.predict(inputs(name), verbose=0)
    if isinstance(found, dict):
        found = [found[key] for key in sorted(found)]
    found = found if isinstance(found, (list, tuple)) else [found]
    return [np.asarray(array.detach() if hasattr(array, "detach") else array) for array in found]


def compile_and_train(lib, name, model):
    """Compile with one of the optimizers, and take two steps."""
    optimizer, arguments = OPTIMIZERS[zlib.crc32(name.encode()) % len(OPTIMIZERS)]
    y = targets(name, model)
    model.compile(
        getattr(lib.optimizers, optimizer)(**arguments),
        like(y, lambda array: "mse"),
        metrics=None if isinstance(y, (dict, list)) else ["mae"],
    )
    return train(name, model)


def train(name, model):
    """Two steps on the same rows in the same order; the losses and metrics."""
    y = targets(name, model)
    history = model.fit(inputs(name), y, batch_size=ROWS // 2, epochs=1, shuffle=False, verbose=0).history
    return {key: values[0] for key, values in history.items()}


# --- composed models --------------------------------------------------------------------------------------------------


@case((6,))
def branches(lib):
    x = lib.Input((6,))
    left = lib.layers.Dense(5, "relu")(x)
    right = lib.layers.Dense(4, "tanh")(lib.layers.Dense(3)(x))
    return lib.Model(x, lib.layers.Dense(2)(lib.layers.Concatenate()([left, right, x])))


@case((5,))
def shared_layers(lib):
    a, b = lib.layers.Dense(5, "tanh", name="a"), lib.layers.Dense(5, "sigmoid", name="b")
    x = lib.Input((5,))
    return lib.Model(x, a(b(a(b(x)))))


@case((3, 4), (4,))
def shared_across_ranks(lib):
    dense = lib.layers.Dense(5, "relu", activity_regularizer="l2")
    deep, flat = lib.Input((3, 4)), lib.Input((4,))
    parts = [lib.layers.Flatten()(dense(deep)), dense(flat)]
    return lib.Model([deep, flat], lib.layers.Dense(2)(lib.layers.Concatenate()(parts)))


@case((4,))
def nested_models(lib):
    x = lib.Input((4,))
    third = lib.Model(x, lib.layers.Dense(3, "tanh")(x), name="third")
    x = lib.Input((4,))
    second = lib.Model(x, lib.layers.Dense(4)(third(x)), name="second")
    x = lib.Input((4,))
    first = lib.Model(x, lib.layers.Add()([second(x), x]), name="first")
    x = lib.Input((4,))
    return lib.Model(x, lib.layers.Dense(2)(first(lib.layers.Dense(4)(x))))


@case((4,))
def nested_sequential(lib):
    inner = lib.Sequential([lib.layers.Dense(6, "relu"), lib.layers.Dense(4)], name="inner")
    outer = lib.Sequential([lib.Input((4,)), inner, lib.layers.Dense(4)], name="outer")
    x = lib.Input((4,))
    return lib.Model(x, lib.layers.Dense(2)(outer(x)) + 1.0)


@case((4,), (3,), Ids((), 5))
def inputs_and_outputs_in_lists(lib):
    a, b, c = lib.Input((4,), name="a"), lib.Input((3,), name="b"), lib.Input((), name="c", dtype="int32")
    both = lib.layers.Concatenate()([a, b, lib.layers.Embedding(5, 2)(c)])
    return lib.Model([a, b, c], [lib.layers.Dense(2)(both), lib.layers.Dense(1, "sigmoid")(both)])


@case({"wide": (4,), "deep": (3,)})
def inputs_and_outputs_in_dicts(lib):
    wide, deep = lib.Input((4,), name="wide"), lib.Input((3,), name="deep")
    hidden = lib.layers.Dense(6, "relu")(deep)
    outputs = {"z": lib.layers.Dense(2, name="z")(lib.layers.Concatenate()([wide, hidden])), "a": hidden * 2.0}
    return lib.Model({"wide": wide, "deep": deep}, outputs)


@case((5,), (5,))
def a_model_used_twice(lib):
    x = lib.Input((5,))
    encoder = lib.Model(x, lib.layers.Dense(3, "tanh")(lib.layers.Dense(6, "relu")(x)), name="encoder")
    one, two = lib.Input((5,)), lib.Input((5,))
    apart = lib.layers.Subtract()([encoder(one), encoder(two)])
    return lib.Model([one, two], lib.layers.Dense(1, "sigmoid")(apart**2))


@case((5,), by_call=True)
def training_said_at_the_call(lib):
    x = lib.Input((5,))
    hidden = lib.layers.BatchNormalization()(lib.layers.Dense(6)(x), training=True)
    return lib.Model(x, lib.layers.Dense(2)(hidden))


@case((6,))
def residual_by_layers(lib):
    x = lib.Input((6,))
    hidden = x
    for _ in range(3):
        inner = lib.layers.Dense(6)(lib.layers.LayerNormalization()(hidden))
        hidden = lib.layers.Add()([hidden, lib.layers.Activation("gelu")(inner)])
    return lib.Model(x, lib.layers.Dense(1)(hidden))


@case((6,))
def residual_by_operators(lib):
    x = lib.Input((6,))
    hidden = x
    for scale in (0.5, 0.25):
        hidden = hidden + scale * lib.layers.Dense(6, "silu")(hidden)
    return lib.Model(x, lib.layers.Dense(1)(hidden) / 2.0 - 1)


@case((4, 6))
def operators(lib):
    x = lib.Input((4, 6))
    first, rest = x[:, 0], x[:, 1:3, ::2]
    gate = abs(first) / (1.0 + first**2)
    positive = lib.layers.Dense(6)((first > 0) * gate - (first <= -0.5) * (2 - gate))
    product = x @ lib.layers.Reshape((6, 1))(-positive)
    flat = lib.layers.Concatenate()([lib.layers.Flatten()(rest), lib.layers.Flatten()(product), x[..., -1, :]])
    return lib.Model(x, [lib.layers.Dense(2)(flat), positive[:, None] + x])


@case(Ids((5,), 6))
def masked_embedding(lib):
    ids = lib.Input((5,), dtype="int32")
    words = lib.layers.Embedding(6, 4, mask_zero=True)(ids)
    hidden = lib.layers.BatchNormalization()(lib.layers.Dense(4, "relu")(words))
    return lib.Model(ids, lib.layers.Dense(2)(hidden))


@case(Ids((5,), 6), Ids((5,), 4))
def masks_of_two_embeddings(lib):
    one, two = lib.Input((5,), dtype="int32"), lib.Input((5,), dtype="int32")
    words, tags = lib.layers.Embedding(6, 4, mask_zero=True)(one), lib.layers.Embedding(4, 4, mask_zero=True)(two)
    added = lib.layers.BatchNormalization()(lib.layers.Add()([words, tags]))
    beside = lib.layers.BatchNormalization()(lib.layers.Concatenate()([words, tags]))
    return lib.Model([one, two], [lib.layers.Dense(2)(added), lib.layers.Dense(2)(beside)])


@case((5, 3))
def masked_numbers(lib):
    x = lib.Input((5, 3))
    hidden = lib.layers.Masking()(x)
    hidden = lib.layers.BatchNormalization()(lib.layers.Dense(4)(hidden))
    return lib.Model(x, lib.layers.Dense(1)(lib.layers.LeakyReLU(0.1)(hidden)))


@case(Ids((5,), 6))
def masks_through_a_nested_model(lib):
    x = lib.Input((5, 4))
    inner = lib.Model(x, lib.layers.BatchNormalization()(lib.layers.Dense(4, "tanh")(x)), name="inner")
    ids = lib.Input((5,), dtype="int32")
    return lib.Model(ids, lib.layers.Dense(2)(inner(lib.layers.Embedding(6, 4, mask_zero=True)(ids))))


@case((6,), random=True)
def batch_normalization_and_dropout(lib):
    x = lib.Input((6,))
    hidden = x
    for _ in range(2):
        hidden = lib.layers.Dense(8, use_bias=False)(hidden)
        hidden = lib.layers.ReLU()(lib.layers.BatchNormalization(momentum=0.9)(hidden))
        hidden = lib.layers.Dropout(0.3, seed=1)(lib.layers.GaussianNoise(0.1, seed=2)(hidden))
    return lib.Model(x, lib.layers.Dense(2, "softmax")(hidden))


@case((4,))
def adapted_normalization(lib):
    normalization = lib.layers.Normalization()
    normalization.adapt(np.random.default_rng(5).normal(3.0, 2.0, size=(50, 4)).astype("float32"))
    x = lib.Input((4,))
    return lib.Model(x, lib.layers.Dense(2)(lib.layers.Rescaling(0.5, 0.1)(normalization(x))))


@case((4,), (4,))
def merges(lib):
    layers = lib.layers
    a, b = lib.Input((4,)), lib.Input((4,))
    one, two = layers.Dense(4)(a), layers.Dense(4)(b)
    kinds = (layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
    parts = [kind()([one, two, a]) for kind in kinds] + [layers.Subtract()([one, two])]
    return lib.Model([a, b], layers.Dense(2)(layers.Concatenate(axis=-1)(parts)))


@case((5,))
def several_heads(lib):
    x = lib.Input((5,))
    body = lib.layers.Dense(8, "relu", name="body")(x)
    heads = [lib.layers.Dense(units, name=name)(body) for name, units in (("one", 1), ("three", 3), ("four", 4))]
    return lib.Model(x, [*heads, x])


@case((5,))
def penalties(lib):
    x = lib.Input((5,))
    hidden = lib.layers.Dense(
        6,
        "elu",
        kernel_regularizer=lib.regularizers.L1L2(0.01, 0.02),
        bias_regularizer="l1",
        activity_regularizer=lib.regularizers.L2(0.03),
    )(x)
    hidden = lib.layers.ActivityRegularization(l1=0.01, l2=0.02)(hidden)
    rows = lib.regularizers.OrthogonalRegularizer(0.1)
    dense = lib.layers.Dense(4, kernel_regularizer=rows, activity_regularizer="l1")
    return lib.Model(x, dense(dense(lib.layers.Dense(4)(hidden))))


@case((5,))
def constraints(lib):
    constraints = lib.constraints
    x = lib.Input((5,))
    hidden = lib.layers.Dense(6, "relu", kernel_constraint=constraints.MaxNorm(0.5), bias_constraint="non_neg")(x)
    hidden = lib.layers.Dense(4, kernel_constraint=constraints.MinMaxNorm(0.2, 0.6, rate=0.5, axis=1))(hidden)
    return lib.Model(x, lib.layers.Dense(2, kernel_constraint="unit_norm", kernel_initializer="he_normal")(hidden))


@case((4,))
def frozen_parts(lib):
    frozen = lib.layers.Dense(4, "relu", trainable=False)
    x = lib.Input((4,))
    inner = lib.Model(x, lib.layers.BatchNormalization()(lib.layers.Dense(4)(x)), name="inner")
    inner.trainable = False
    x = lib.Input((4,))
    return lib.Model(x, lib.layers.Dense(2)(inner(frozen(x))))


# --- every layer ------------------------------------------------------------------------------------------------------


def layer(kind, shape, random=False, **arguments):
    """Enter a model around one layer; an argument may be a function of the library."""

    def build(lib):
        given = {key: value(lib) if callable(value) else value for key, value in arguments.items()}
        made = getattr(lib.layers, kind)(**given)
        x = lib.Input(shape.shape, dtype="int32") if isinstance(shape, Ids) else lib.Input(shape)
        if kind in ("Embedding", "Masking"):
            return lib.Model(x, lib.layers.Dense(2)(made(x)))
        hidden = lib.layers.Dense(shape[-1])(x)
        return lib.Model(x, lib.layers.Dense(2)(made([hidden, x] if kind in PAIRS else hidden)))

    CASES[kind] = Case(build, shape, random)


PAIRS = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
for pair in PAIRS:
    layer(pair, (3, 4))
layer("Dense", (4,), units=3, activation="gelu", kernel_regularizer="l2")
layer("Activation", (4,), activation="softplus")
layer("ReLU", (4,), max_value=2.0, negative_slope=0.1, threshold=0.2)
layer("LeakyReLU", (4,), negative_slope=0.2)
layer("PReLU", (3, 4), alpha_initializer=lambda lib: lib.initializers.Constant(0.25), shared_axes=[1])
layer("ELU", (4,), alpha=0.5)
layer("Softmax", (3, 4), axis=1)
layer("Dropout", (3, 4), rate=0.4, noise_shape=[None, 1, 4], seed=3, random=True)
layer("AlphaDropout", (3, 4), rate=0.2, noise_shape=[None, 1, 4], seed=3, random=True)
layer("GaussianDropout", (4,), rate=0.2, seed=3, random=True)
layer("GaussianNoise", (4,), stddev=0.2, seed=3, random=True)
layer("Flatten", (3, 4))
layer("Reshape", (3, 4), target_shape=(2, -1))
layer("BatchNormalization", (3, 4), axis=1, momentum=0.8, epsilon=0.01)
layer("LayerNormalization", (3, 4), axis=[1, 2], epsilon=0.01)
layer("RMSNormalization", (3, 4), axis=[1, 2], epsilon=0.01)
layer("UnitNormalization", (3, 4), axis=[1, 2])
layer("Normalization", (4,), axis=None, mean=0.5, variance=2.0)
layer("Rescaling", (4,), scale=[1.0, 2.0, 3.0, 4.0], offset=-0.5)
layer("Embedding", Ids((3,), 6), input_dim=6, output_dim=4, embeddings_constraint="unit_norm")
layer("ActivityRegularization", (4,), l1=0.1, l2=0.2)
layer("Identity", (4,))
layer("Masking", (3, 4), mask_value=0.0)


def _input_layer(lib):
    parts = [lib.layers.InputLayer((4,), name="start"), lib.layers.Dense(3, "relu"), lib.layers.Dense(2)]
    return lib.Sequential(parts)


CASES["InputLayer"] = Case(_input_layer, (4,))
