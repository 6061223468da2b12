"""All optimizers with all options against real Keras 3.15.1 on its torch backend: averages, accumulation, schedules.

Bounds come from float32's unit roundoff u = 2^-24, per weight, with D its largest change in one step of T, W its
largest value. A sum of t terms, such as a momentum, is off by at most 6 t u of its scale on both sides together, so T
steps give 3 T^2 u D; T additions to the weight give 2 T u W. Keras works out the bias correction 1 - beta_2^t in
float32, we in float64: 4 u / (1 - beta_2^t) of a step.
"""

import inspect
import itertools
import json
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin import optimizers

STEPS = 30
NEW = ["Nadam", "Adamax", "Adagrad", "Adadelta", "Lion"]
NAMES = ["SGD", "Adam", "AdamW", "RMSprop", *NEW]
SHAPES = [(3, 4), (4,), ()]
U = 2.0**-24
PARITY = settings(derandomize=True, deadline=None, phases=[Phase.generate], max_examples=25)


@st.composite
def rule_arguments(draw, name):
    """Arguments of one optimizer's own."""
    found = {}
    if name == "SGD":
        found = {"momentum": draw(st.sampled_from([0.0, 0.9])), "nesterov": draw(st.booleans())}
    elif name in ("RMSprop", "Adadelta"):
        found = {"rho": draw(st.sampled_from([0.5, 0.9])), "epsilon": draw(st.sampled_from([1e-7, 1e-3]))}
    elif name == "Adagrad":
        found = {"initial_accumulator_value": draw(st.sampled_from([0.0, 0.1, 2.0]))}
    elif name == "Lion":
        found = {"beta_1": draw(st.sampled_from([0.5, 0.9, 1.0])), "beta_2": draw(st.sampled_from([0.0, 0.5, 0.99]))}
    else:
        found = {"beta_1": draw(st.sampled_from([0.0, 0.5, 0.9])), "beta_2": draw(st.sampled_from([0.5, 0.99, 0.999]))}
        found["epsilon"] = draw(st.sampled_from([1e-7, 1e-3]))
    return found


@st.composite
def arguments(draw, name):
    found = draw(rule_arguments(name))
    found["learning_rate"] = draw(st.sampled_from([1e-3, 1e-2, 0.3]))
    clip = draw(st.sampled_from([None, "clipnorm", "clipvalue", "global_clipnorm"]))
    if clip:
        found[clip] = draw(st.sampled_from([0.1, 1.0, 50.0]))
    if draw(st.booleans()):
        found["weight_decay"] = draw(st.sampled_from([0.004, 0.5]))
    if draw(st.booleans()):
        found |= {"use_ema": True, "ema_momentum": draw(st.sampled_from([0.0, 0.5, 0.99]))}
        found["ema_overwrite_frequency"] = draw(st.sampled_from([None, 1, 3]))
    found["gradient_accumulation_steps"] = draw(st.sampled_from([None, None, 2, 4]))
    return found


def pair(name, options, schedule=None):
    """The same optimizer of ours and of Keras."""
    made = []
    for lib in (optimizers, keras.optimizers):
        rate = options["learning_rate"]
        rate = schedule(lib.schedules, rate) if schedule else rate
        made.append(getattr(lib, name)(**{**options, "learning_rate": rate}))
    return made


def start(seed):
    rng = np.random.default_rng(seed)
    values = [np.asarray(rng.normal(size=s), dtype="float32") for s in SHAPES]
    return rng, [torch.nn.Parameter(torch.tensor(v)) for v in values], [keras.Variable(v) for v in values]


def step_gradients(rng):
    return [torch.tensor(np.asarray(rng.normal(size=s) * 10.0 ** rng.integers(-2, 2), dtype="f4")) for s in SHAPES]


def values(variables):
    return [np.asarray(keras.ops.convert_to_numpy(v), dtype="f8") for v in variables]


def bounds(path, options):
    """How far the weights may be apart after the steps of `path`, one list of weights for each."""
    beta = options.get("beta_2", 0.999)
    corrections = sum(4 / (1 - beta**t) for t in range(1, len(path))) if beta < 1 else 0.0
    found = []
    for way in zip(*path, strict=True):
        change = max(np.abs(b - a).max() for a, b in itertools.pairwise(way))
        largest = max(np.abs(w).max() for w in way)
        found.append(U * ((3 * len(path) ** 2 + corrections) * change + 2 * len(path) * largest))
    return found


SCHEDULES = {
    "number": None,
    "exponential": lambda lib, rate: lib.ExponentialDecay(rate, 5, 0.7),
    "cosine": lambda lib, rate: lib.CosineDecay(0.0, 20, 0.1, warmup_target=rate, warmup_steps=5),
}


@pytest.mark.parametrize("name", NAMES)
@PARITY
@given(st.data(), st.sampled_from(list(SCHEDULES)), st.integers(0, 10_000))
def test_thirty_steps(name, data, kind, seed):
    options = data.draw(arguments(name))
    rng, a, b = start(seed)
    ours, theirs = pair(name, options, SCHEDULES[kind])
    path = [values(b)]
    for _ in range(STEPS):
        g = step_gradients(rng)
        ours.apply(g, a)
        theirs.apply(g, b)
        path.append(values(b))
    allowed = bounds(path, options)
    assert ours.iterations == int(theirs.iterations)
    assert ours.learning_rate == pytest.approx(float(theirs.learning_rate), rel=1e-6)
    for x, y, bound in zip(a, path[-1], allowed, strict=True):
        np.testing.assert_allclose(x.detach().numpy(), y, rtol=0, atol=bound)
    state, expected = ours.get_state(a), values(theirs.variables)
    assert [s.shape for s in state] == [e.shape for e in expected]
    assert [s.dtype.name for s in state] == [v.dtype for v in theirs.variables]
    for mine, other in zip(state, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=3 * STEPS**2 * U * max(1.0, np.abs(other).max()))
    ours.finalize_variable_values(a)
    theirs.finalize_variable_values(b)
    for x, y, bound in zip(a, values(b), allowed, strict=True):
        np.testing.assert_allclose(x.detach().numpy(), y, rtol=0, atol=bound)


@pytest.mark.parametrize("name", NAMES)
@PARITY
@given(st.data(), st.integers(1, 7), st.integers(0, 10_000))
def test_state_goes_over_to_either_side(name, data, count, seed):
    """After any number of calls, also within a round, each side goes on from the other's state as the other does."""
    options = data.draw(arguments(name))
    rng, a, b = start(seed)
    ours, theirs = pair(name, options)
    for _ in range(count):
        g = step_gradients(rng)
        ours.apply(g, a)
        theirs.apply(g, b)
    here, there = pair(name, options)
    a2 = [torch.nn.Parameter(torch.tensor(v, dtype=torch.float32)) for v in values(b)]
    b2 = [keras.Variable(w.detach().numpy()) for w in a]
    here.set_state(a2, [keras.ops.convert_to_numpy(v) for v in theirs.variables])
    there.build(b2)
    for variable, array in zip(there.variables, ours.get_state(a), strict=True):
        variable.assign(array)
    path = [values(b)]
    for _ in range(5):
        g = step_gradients(rng)
        here.apply(g, a2)
        theirs.apply(g, b)
        ours.apply(g, a)
        there.apply(g, b2)
        path.append(values(b))
    for x, y, x2, y2, bound in zip(a2, values(b), a, values(b2), bounds(path, options), strict=True):
        np.testing.assert_allclose(x.detach().numpy(), y, rtol=0, atol=bound)
        np.testing.assert_allclose(x2.detach().numpy(), y2, rtol=0, atol=bound)


@pytest.mark.parametrize("name", NAMES)
@PARITY
@given(st.data(), st.sampled_from(list(SCHEDULES)))
def test_configs(name, data, kind):
    options = {**data.draw(arguments(name)), "name": "mine"}
    ours, theirs = pair(name, options, SCHEDULES[kind])
    assert list(ours.get_config().items()) == list(theirs.get_config().items())
    there = keras.optimizers.deserialize(json.loads(json.dumps(optimizers.serialize(ours))))
    assert there.get_config() == theirs.get_config()
    here = optimizers.deserialize(json.loads(json.dumps(keras.optimizers.serialize(theirs))))
    assert (type(here), here.get_config()) == (type(ours), ours.get_config())


@pytest.mark.parametrize("name", NEW)
def test_signatures_and_names(name):
    mine, theirs = getattr(optimizers, name), getattr(keras.optimizers, name)
    shown = [
        [(p.name, p.default, p.kind) for p in inspect.signature(cls.__init__).parameters.values()]
        for cls in (mine, theirs)
    ]
    assert shown[0] == shown[1]
    keras.backend.clear_session(free_memory=False)
    assert mine().name == theirs().name
    for identifier in (name, name.lower(), name.upper()):
        assert type(optimizers.get(identifier)) is mine
        assert isinstance(keras.optimizers.get(identifier), theirs)


def test_a_number_for_a_schedule_is_refused_by_both():
    for optimizer in pair("SGD", {"learning_rate": 0.1}, SCHEDULES["exponential"]):
        with pytest.raises(TypeError, match="learning rate"):
            optimizer.learning_rate = 0.5


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_the_variables_of_a_trained_model_are_those_of_keras(policy):
    x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
    shapes = []
    for library in (fanin, keras):
        hidden = library.layers.Dense(2, activation="tanh", dtype=policy)
        model = library.Sequential([library.Input((3,)), hidden, library.layers.Dense(1)])
        optimizer = library.optimizers.Adam(0.01)
        assert len(optimizer.variables) == 2
        model.compile(library.optimizers.LossScaleOptimizer(optimizer) if "16" in policy else optimizer, "mse")
        model.fit(x, y, epochs=2, verbose=0)
        shapes.append([tuple(variable.shape) for variable in model.optimizer.variables])
        assert float(optimizer.variables[0]) == 2
    assert shapes[0] == shapes[1]
