import json
import math
import pickle

import numpy as np
import pytest
import torch

import fanin
from fanin import optimizers
from fanin.optimizers import SGD, Adam, schedules
from fanin.optimizers.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
    PiecewiseConstantDecay,
    PolynomialDecay,
)
from fanin.registry import register_keras_serializable

STEPS = [0, 1, 2, 6, 7, 8, 13, 14, 15, 20, 21, 49, 50, 1000]


def cosine(share):
    return (1 + math.cos(math.pi * share)) / 2


def restarts(step, first, t_mul, m_mul, alpha):
    """By walking from period to period."""
    begin, length, top = 0.0, first, 1.0
    while step >= begin + length * (1 - 1e-12):
        begin, length, top = begin + length, length * t_mul, top * m_mul
    return 0.3 * ((1 - alpha) * top * cosine((step - begin) / length) + alpha)


# Every schedule in every form, with its closed formula.
KINDS = {
    "exponential": (ExponentialDecay(0.3, 7, 0.6), lambda t: 0.3 * 0.6 ** (t / 7)),
    "exponential stairs": (ExponentialDecay(0.3, 7, 0.6, staircase=True), lambda t: 0.3 * 0.6 ** (t // 7)),
    "inverse": (InverseTimeDecay(0.3, 7, 0.6), lambda t: 0.3 / (1 + 0.6 * t / 7)),
    "inverse stairs": (InverseTimeDecay(0.3, 7, 0.6, staircase=True), lambda t: 0.3 / (1 + 0.6 * (t // 7))),
    "polynomial": (
        PolynomialDecay(0.3, 7, 0.1, power=0.5),
        lambda t: 0.2 * (1 - min(t, 7) / 7) ** 0.5 + 0.1,
    ),
    "polynomial up": (PolynomialDecay(0.1, 7, 0.3, power=2), lambda t: 0.3 - 0.2 * (1 - min(t, 7) / 7) ** 2),
    "polynomial cycle": (
        PolynomialDecay(0.3, 7, 0.1, power=2, cycle=True),
        lambda t: 0.2 * (1 - t / (7 * max(1, math.ceil(t / 7)))) ** 2 + 0.1,
    ),
    "pieces": (
        PiecewiseConstantDecay([6, 7.5, 20], [0.3, 0, 0.2, 1]),
        lambda t: 0.3 if t <= 6 else 0 if t <= 7 else 0.2 if t <= 20 else 1,
    ),
    "one piece": (PiecewiseConstantDecay([], [0.3]), lambda t: 0.3),
    "cosine": (CosineDecay(0.3, 14, alpha=0.25), lambda t: 0.3 * (0.75 * cosine(min(t, 14) / 14) + 0.25)),
    "cosine warm": (
        CosineDecay(0, 14, alpha=0.25, warmup_target=0.3, warmup_steps=7),
        lambda t: 0.3 * t / 7 if t < 7 else 0.3 * (0.75 * cosine(min(t - 7, 14) / 14) + 0.25),
    ),
    "cosine warm at once": (CosineDecay(0.1, 14, warmup_target=0.3), lambda t: 0.3 * cosine(min(t, 14) / 14)),
    "restarts": (CosineDecayRestarts(0.3, 7, m_mul=0.5, alpha=0.1), lambda t: restarts(t, 7, 2.0, 0.5, 0.1)),
    "restarts even": (CosineDecayRestarts(0.3, 7, t_mul=1, m_mul=0.9), lambda t: restarts(t, 7, 1.0, 0.9, 0.0)),
    "restarts slow": (CosineDecayRestarts(0.3, 5, t_mul=1.1), lambda t: restarts(t, 5, 1.1, 1.0, 0.0)),
}
EACH = pytest.mark.parametrize(("schedule", "expected"), KINDS.values(), ids=KINDS)


@EACH
def test_formula(schedule, expected):
    for step in STEPS:
        found = schedule(step)
        assert type(found) is float
        assert found == pytest.approx(expected(step), rel=1e-12, abs=1e-15)
        assert schedule(np.int64(step)) == found


@pytest.mark.parametrize("t_mul", [1, 1.5, 2, 3, 7])
def test_every_restart_comes_at_its_step(t_mul):
    schedule = CosineDecayRestarts(1.0, first_decay_steps=2**12, t_mul=t_mul)
    begin, length = 0.0, 2.0**12
    for _ in range(9):
        assert begin.is_integer()
        assert schedule(int(begin)) == pytest.approx(1.0, abs=1e-12)
        assert schedule(torch.tensor(int(begin))).item() == 1.0
        assert schedule(int(begin + length) - 1) < 1e-4
        begin, length = begin + length, length * t_mul


@EACH
def test_a_tensor_gives_a_tensor(schedule, expected):
    for step in STEPS:
        for dtype in (torch.int32, torch.int64, torch.float32):
            found = schedule(torch.tensor(step, dtype=dtype))
            assert (found.dtype, found.shape) == (torch.float32, ())
            assert found.item() == pytest.approx(expected(step), rel=1e-7, abs=1e-15)
    fanin.config.set_floatx("float64")
    assert schedule(torch.tensor(8)).dtype == torch.float64
    assert schedule(torch.tensor(8)).item() == pytest.approx(expected(8), rel=1e-12)


@EACH
def test_configs_and_copies(schedule, expected):
    form = json.loads(json.dumps(schedules.serialize(schedule)))
    assert (form["module"], form["class_name"]) == ("keras.optimizers.schedules", type(schedule).__name__)
    copies = [schedules.deserialize(form), pickle.loads(pickle.dumps(schedule))]
    copies.append(schedules.deserialize({"class_name": form["class_name"], "config": form["config"]}))
    inside = json.loads(json.dumps(optimizers.serialize(Adam(schedule))))
    copies.append(optimizers.deserialize(inside)._rate)
    for again in copies:
        assert type(again) is type(schedule)
        assert again.get_config() == schedule.get_config()
        assert again(8) == schedule(8)


def test_numbers_in_configs_stay_as_they_were_given():
    config = CosineDecay(0, 10, warmup_target=np.float32(0.5), warmup_steps=np.int64(3)).get_config()
    assert json.dumps(config) == (
        '{"initial_learning_rate": 0, "decay_steps": 10, "alpha": 0.0, "name": "CosineDecay", "warmup_target": 0.5, '
        '"warmup_steps": 3}'
    )
    assert repr(ExponentialDecay(0.5, 10, 0.9)) == (
        "ExponentialDecay(initial_learning_rate=0.5, decay_steps=10, decay_rate=0.9, staircase=False)"
    )


def test_an_own_schedule():
    class Halving(LearningRateSchedule):
        def __init__(self, start):
            self.start = start

        def __call__(self, step):
            return self.start / 2**step

    optimizer = SGD(Halving(0.5))
    w = torch.nn.Parameter(torch.tensor(0.0))
    optimizer.apply([torch.tensor(1.0)], [w])
    assert (w.item(), optimizer.learning_rate) == (-0.5, 0.25)
    with pytest.raises(NotImplementedError, match=r"Schedule Halving cannot be saved: give it get_config\(\)"):
        Halving(0.5).get_config()
    with pytest.raises(NotImplementedError, match="give it __call__"):
        LearningRateSchedule()(0)

    @register_keras_serializable("tests")
    class Saved(Halving):
        def get_config(self):
            return {"start": self.start}

    again = optimizers.deserialize(json.loads(json.dumps(optimizers.serialize(SGD(Saved(0.125))))))
    assert again.learning_rate == 0.125


def test_what_is_no_schedule():
    with pytest.raises(ValueError, match=r"Unknown class 'Exponential'"):
        schedules.deserialize({"module": "keras.optimizers.schedules", "class_name": "Exponential", "config": {}})
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    for read in (schedules.deserialize, lambda config: optimizers.SGD.from_config({"learning_rate": config})):
        with pytest.raises(TypeError, match="Could not interpret learning-rate schedule"):
            read(policy)


def test_rates_that_are_no_numbers_stop_the_step():
    huge = ExponentialDecay(1.0, 1, 1e9)
    assert huge(1000) == math.inf
    for schedule, step in ((huge, 1000), (CosineDecayRestarts(0.1, 10, t_mul=0.5), 25)):
        optimizer = SGD(schedule)
        optimizer.iterations = step
        with pytest.raises(ValueError, match="learning_rate must be a number"):
            optimizer.apply([torch.ones(1)], [torch.nn.Parameter(torch.ones(1))])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExponentialDecay(-0.1, 10, 0.9), "initial_learning_rate must be a number in"),
        (lambda: ExponentialDecay(0.1, 0, 0.9), r"decay_steps must be a number in \(0, inf\), found 0"),
        (lambda: ExponentialDecay(0.1, 10, math.nan), "decay_rate must be"),
        (lambda: ExponentialDecay(0.1, 10, 0.9, staircase=2), "staircase must be True or False"),
        (lambda: InverseTimeDecay(0.1, -1, 0.9), "decay_steps must be"),
        (lambda: InverseTimeDecay(0.1, 1, -0.9), "decay_rate must be"),
        (lambda: PolynomialDecay(0.1, 0), "decay_steps must be"),
        (lambda: PolynomialDecay(0.1, 1, end_learning_rate=None), "end_learning_rate must be"),
        (lambda: PolynomialDecay(0.1, 1, power=-1), "power must be"),
        (lambda: PolynomialDecay(0.1, 1, cycle=1), "cycle must be"),
        (lambda: PiecewiseConstantDecay([1], [0.1]), "one more than boundaries, found 1 values and 1 boundaries"),
        (lambda: PiecewiseConstantDecay([2, 2], [1, 2, 3]), r"must grow from one to the next, found \[2, 2\]"),
        (lambda: PiecewiseConstantDecay(["a"], [1, 2]), "boundaries must be"),
        (lambda: PiecewiseConstantDecay([1], [1, math.inf]), "values must be"),
        (lambda: CosineDecay(0.1, 0), "decay_steps must be"),
        (lambda: CosineDecay(0.1, 1, alpha=-1), "alpha must be"),
        (lambda: CosineDecay(0.1, 1, warmup_target="a"), "warmup_target must be"),
        (lambda: CosineDecay(0.1, 1, warmup_target=1, warmup_steps=-1), "warmup_steps must be"),
        (lambda: CosineDecayRestarts(0.1, 0), "first_decay_steps must be"),
        (lambda: CosineDecayRestarts(0.1, 1, t_mul=0), "t_mul must be"),
        (lambda: CosineDecayRestarts(0.1, 1, m_mul=-1), "m_mul must be"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
