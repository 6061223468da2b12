"""Optimizers against real Keras 3.15.1 on its torch backend: the same weights and gradients, the same weights after.

Keras works out Adam's bias corrections in float32, where 1 - 0.999^t keeps four digits at the first steps; we in
float64. Weights agree to 1e-5 of their largest change.
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

from fanin import optimizers

PARITY = settings(derandomize=True, deadline=None, max_examples=40)
NAMES = ["SGD", "Adam", "AdamW", "RMSprop"]
SHAPES = [(3, 4), (4,), (4, 2), ()]


@st.composite
def arguments(draw, name):
    found = {"learning_rate": draw(st.sampled_from([1e-4, 1e-2, 0.3]))}
    if name == "SGD":
        found["momentum"] = draw(st.sampled_from([0.0, 0.5, 0.9]))
        found["nesterov"] = draw(st.booleans())
    elif name == "RMSprop":
        found["rho"] = draw(st.sampled_from([0.0, 0.5, 0.9]))
        found["momentum"] = draw(st.sampled_from([0.0, 0.5]))
        found["epsilon"] = draw(st.sampled_from([1e-7, 1e-3]))
        found["centered"] = draw(st.booleans()) and found["rho"] > 0  # at rho 0, v - a^2 is all rounding
    else:
        found["beta_1"] = draw(st.sampled_from([0.0, 0.5, 0.9]))
        found["beta_2"] = draw(st.sampled_from([0.5, 0.99, 0.999]))
        found["epsilon"] = draw(st.sampled_from([1e-7, 1e-3]))
        found["amsgrad"] = draw(st.booleans())
    clip = draw(st.sampled_from([None, "clipnorm", "clipvalue", "global_clipnorm"]))
    if clip:
        found[clip] = draw(st.sampled_from([0.1, 1.0, 50.0]))
    if draw(st.booleans()):
        found["weight_decay"] = draw(st.sampled_from([0.004, 0.5]))
    return found


def start(seed):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(size=s), dtype="float32") for s in SHAPES], rng


def step_gradients(rng):
    return [np.asarray(rng.normal(size=s) * 10.0 ** rng.integers(-3, 2), dtype="float32") for s in SHAPES]


@pytest.mark.parametrize("name", NAMES)
@PARITY
@given(st.data(), st.integers(0, 10_000))
def test_fifty_steps(name, data, seed):
    options = data.draw(arguments(name))
    values, rng = start(seed)
    ours, theirs = getattr(optimizers, name)(**options), getattr(keras.optimizers, name)(**options)
    a = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    b = [keras.Variable(v) for v in values]
    for step in range(50):
        if step == 25:
            ours.learning_rate = options["learning_rate"] / 2
            theirs.learning_rate = options["learning_rate"] / 2
        g = step_gradients(rng)
        ours.apply([torch.tensor(x) for x in g], a)
        theirs.apply([torch.tensor(x) for x in g], b)
    for x, y, v in zip(a, b, values, strict=True):
        y = keras.ops.convert_to_numpy(y)
        scale = max(float(np.abs(y - v).max()), float(np.abs(y).max()), 1e-3)
        np.testing.assert_allclose(x.detach().numpy() / scale, y / scale, rtol=0, atol=1e-5)
    state, variables = ours.get_state(a), theirs.variables
    assert len(state) == len(variables)
    for x, y in zip(state, variables, strict=True):
        y = keras.ops.convert_to_numpy(y)
        scale = max(float(np.abs(y).max()), 1e-6)
        np.testing.assert_allclose(x / scale, y / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@PARITY
@given(st.data(), st.integers(0, 10_000))
def test_training_goes_on_from_the_state_of_keras(name, data, seed):
    options = data.draw(arguments(name))
    values, rng = start(seed)
    theirs = getattr(keras.optimizers, name)(**options)
    b = [keras.Variable(v) for v in values]
    for _ in range(3):
        theirs.apply([torch.tensor(x) for x in step_gradients(rng)], b)
    ours = optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(theirs))))
    a = [torch.nn.Parameter(torch.tensor(keras.ops.convert_to_numpy(v))) for v in b]
    ours.set_state(a, [keras.ops.convert_to_numpy(v) for v in theirs.variables])
    before = [w.detach().clone() for w in a]
    g = step_gradients(rng)
    ours.apply([torch.tensor(x) for x in g], a)
    theirs.apply([torch.tensor(x) for x in g], b)
    for x, y, v in zip(a, b, before, strict=True):
        y = keras.ops.convert_to_numpy(y)
        scale = max(float(np.abs(y - v.numpy()).max()), float(np.abs(y).max()), 1e-3)
        np.testing.assert_allclose(x.detach().numpy() / scale, y / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@PARITY
@given(st.data())
def test_configs(name, data):
    options = data.draw(arguments(name))
    ours = getattr(optimizers, name)(name="mine", **options)
    theirs = getattr(keras.optimizers, name)(name="mine", **options)
    assert list(ours.get_config().items()) == list(theirs.get_config().items())
    there = keras.optimizers.deserialize(json.loads(json.dumps(optimizers.serialize(ours))))
    assert there.get_config() == theirs.get_config()
    here = optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(theirs))))
    assert (type(here), here.get_config()) == (type(ours), ours.get_config())


@pytest.mark.parametrize("name", NAMES)
def test_signatures(name):
    ours = inspect.signature(getattr(optimizers, name).__init__).parameters
    theirs = inspect.signature(getattr(keras.optimizers, name).__init__).parameters
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]


@pytest.mark.parametrize("name", NAMES)
def test_automatic_names(name):
    keras.backend.clear_session(free_memory=False)
    assert getattr(optimizers, name)().name == getattr(keras.optimizers, name)().name


def test_weights_that_do_not_decay():
    values, rng = start(0)
    ours, theirs = optimizers.AdamW(0.1, weight_decay=0.5), keras.optimizers.AdamW(0.1, weight_decay=0.5)
    a = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    b = [keras.Variable(v) for v in values]
    ours.exclude_from_weight_decay(var_list=[a[1]])
    theirs.exclude_from_weight_decay(var_list=[b[1]])
    for _ in range(10):
        g = [torch.tensor(x) for x in step_gradients(rng)]
        ours.apply(g, a)
        theirs.apply(g, b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x.detach().numpy(), keras.ops.convert_to_numpy(y), rtol=1e-4, atol=1e-5)
