"""Learning rates of single layers, by patterns of names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fanin import Input, Model, Sequential
from fanin.layers import Dense
from fanin.saving import load_model
from fanin.training.multipliers import weight_paths

X, Y = np.ones((8, 3), "float32"), np.zeros((8, 1), "float32")


def model():
    source = Input((3,))
    encoder = Model(source, Dense(4, name="dense", kernel_initializer="ones")(source), name="encoder")
    x = Input((3,))
    return Model(x, Dense(1, name="head", kernel_initializer="ones")(encoder(x)))


def moved(multipliers, optimizer="sgd"):
    """How far each weight moves in one step, by path."""
    made = model()
    made.compile(optimizer, "mse", learning_rate_multipliers=multipliers)
    before = {path: weight.detach().clone() for path, weight in weight_paths(made)}
    made.fit(X, Y, batch_size=8, verbose=0)
    return {path: float((weight.detach() - before[path]).abs().max()) for path, weight in weight_paths(made)}


def test_paths_are_made_of_names():
    assert [path for path, _ in weight_paths(model())] == ["encoder/dense/kernel", "encoder/dense/bias", "head/kernel",
                                                           "head/bias"]  # fmt: skip
    plain = Sequential([Input((3,)), torch.nn.Linear(3, 2)])
    assert [path for path, _ in weight_paths(plain)] == ["0/weight", "0/bias"]


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("encoder", ["encoder/dense/kernel", "encoder/dense/bias"]),
        ("enc*/kernel", ["encoder/dense/kernel"]),
        ("*/bias", ["encoder/dense/bias", "head/bias"]),
        ("head", ["head/kernel", "head/bias"]),
        ("*", ["encoder/dense/kernel", "encoder/dense/bias", "head/kernel", "head/bias"]),
    ],
)
def test_the_weights_that_match_move_less(pattern, chosen):
    whole, scaled = moved({}), moved({pattern: 0.25})
    for path, distance in whole.items():
        assert scaled[path] == pytest.approx(distance * (0.25 if path in chosen else 1.0), rel=1e-5)


def test_the_last_pattern_holds():
    whole, scaled = moved({}), moved({"*": 0.5, "head": 2.0, "head/bias": 0.0})
    assert scaled["encoder/dense/kernel"] == pytest.approx(whole["encoder/dense/kernel"] * 0.5, rel=1e-5)
    assert scaled["head/kernel"] == pytest.approx(whole["head/kernel"] * 2, rel=1e-5)
    assert scaled["head/bias"] == 0.0


@pytest.mark.parametrize(
    ("multipliers", "words"),
    [({"decoder": 0.1}, r"\['decoder'\] matches no weight; there are encoder/dense/kernel"), ({"head": -1}, "head"),
     ({"head": "slow"}, "head"), ([0.1], "dict of pattern and factor"), ({1: 0.1}, "dict of pattern and factor")],
)  # fmt: skip
def test_bad_multipliers(multipliers, words):
    with pytest.raises(ValueError, match=words):
        moved(multipliers)


def test_torch_optimizers_have_groups_for_this():
    with pytest.raises(ValueError, match="groups"):
        moved({"head": 0.1}, torch.optim.SGD)


def test_they_go_along_in_files(tmp_path):
    made = model()
    made.compile("sgd", "mse", learning_rate_multipliers={"encoder": 0.25})
    made.save(tmp_path / "m.keras")
    again = load_model(tmp_path / "m.keras")
    made.fit(X, Y, batch_size=8, verbose=0)
    again.fit(X, Y, batch_size=8, verbose=0)
    for one, other in zip(made.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, other)
