"""Learning-rate schedules against real Keras 3.15.1, which works in float32: equal to a few of its roundings."""

import inspect
import json
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from fanin.optimizers import schedules

NAMES = [
    "ExponentialDecay",
    "InverseTimeDecay",
    "PolynomialDecay",
    "PiecewiseConstantDecay",
    "CosineDecay",
    "CosineDecayRestarts",
]
PARITY = settings(derandomize=True, deadline=None, phases=[Phase.generate], max_examples=60)
RATE = st.floats(0.001, 2.0).map(lambda x: round(x, 4))
LENGTH = st.integers(1, 40)


@st.composite
def arguments(draw, name):
    if name in ("ExponentialDecay", "InverseTimeDecay"):
        return {
            "initial_learning_rate": draw(RATE),
            "decay_steps": draw(LENGTH),
            "decay_rate": draw(st.floats(0.2, 1.5)),
            "staircase": draw(st.booleans()),
        }
    if name == "PolynomialDecay":
        return {
            "initial_learning_rate": draw(RATE),
            "decay_steps": draw(LENGTH),
            "end_learning_rate": draw(RATE),
            "power": draw(st.sampled_from([1.0, 2.0, 3.0])),
            "cycle": draw(st.booleans()),
        }
    if name == "PiecewiseConstantDecay":
        boundaries = draw(st.lists(st.integers(1, 60), min_size=1, max_size=5, unique=True).map(sorted))
        values = draw(st.lists(RATE, min_size=len(boundaries) + 1, max_size=len(boundaries) + 1))
        return {"boundaries": boundaries, "values": values}
    if name == "CosineDecay":
        warm = {"warmup_target": draw(RATE), "warmup_steps": draw(st.integers(0, 20))} if draw(st.booleans()) else {}
        alpha = draw(st.sampled_from([0.0, 0.1, 1.0]))
        return {"initial_learning_rate": draw(RATE), "decay_steps": draw(LENGTH), "alpha": alpha, **warm}
    return {
        "initial_learning_rate": draw(RATE),
        "first_decay_steps": draw(LENGTH),
        "t_mul": draw(st.sampled_from([1.0, 1.5, 2.0, 3.0])),
        "m_mul": draw(st.sampled_from([0.5, 0.9, 1.0])),
        "alpha": draw(st.sampled_from([0.0, 0.1])),
    }


def near_restart(step, options):
    """Whether Keras's float32 may see a restart one period too early or late."""
    begin, length = 0.0, options["first_decay_steps"]
    while begin <= step + 1:
        if begin > 0 and abs(step - begin) < 1e-4 * begin:
            return True
        begin, length = begin + length, length * options["t_mul"]
    return False


@pytest.mark.parametrize("name", NAMES)
@PARITY
@given(st.data(), st.integers(0, 100))
def test_rates(name, data, step):
    options = data.draw(arguments(name))
    ours, theirs = getattr(schedules, name)(**options), getattr(keras.optimizers.schedules, name)(**options)
    if name == "CosineDecayRestarts":
        assume(not near_restart(step, options))
    expected = float(theirs(torch.tensor(step)))
    # Powers and cosines of float32 arguments up to 100 lose two digits at most; a difference of rates some roundings.
    allowed = {"rel": 1e-5, "abs": 1e-6 * max([options.get("initial_learning_rate", 0), *options.get("values", [])])}
    assert ours(step) == pytest.approx(expected, **allowed)
    assert ours(torch.tensor(step)).item() == pytest.approx(expected, **allowed)


@pytest.mark.parametrize("name", NAMES)
@PARITY
@given(st.data())
def test_configs(name, data):
    options = {**data.draw(arguments(name)), "name": "mine"}
    ours, theirs = getattr(schedules, name)(**options), getattr(keras.optimizers.schedules, name)(**options)
    assert list(ours.get_config().items()) == list(theirs.get_config().items())
    form = keras.optimizers.schedules.serialize(theirs)
    assert schedules.serialize(ours) == form
    assert schedules.deserialize(json.loads(json.dumps(form))).get_config() == theirs.get_config()
    there = keras.optimizers.schedules.deserialize(json.loads(json.dumps(schedules.serialize(ours))))
    assert there.get_config() == theirs.get_config()


@pytest.mark.parametrize("name", [*NAMES, "LearningRateSchedule"])
def test_signatures(name):
    shown = [
        [(p.name, p.default, p.kind) for p in inspect.signature(getattr(lib, name)).parameters.values()]
        for lib in (schedules, keras.optimizers.schedules)
    ]
    assert shown[0] == shown[1]


def test_a_first_rate_that_is_an_int_is_a_number_like_any():
    assert schedules.CosineDecay(0, 10, warmup_target=0.2, warmup_steps=4)(2) == 0.1  # Keras gives 0: it rounds to ints
