"""ReLU, LeakyReLU and ELU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fanin.layers import ELU, LeakyReLU, ReLU

X = torch.tensor([[-3.0, -0.5, 0.0, 0.5, 1.0, 2.0, 7.0]])


@pytest.mark.parametrize("max_value", [None, 0.75, 6])
@pytest.mark.parametrize("slope", [0.0, 0.5])
@pytest.mark.parametrize("threshold", [0.0, 0.75])
def test_relu_is_the_formula(max_value, slope, threshold):
    def formula(x):
        if max_value is not None and x >= max_value and x > threshold:
            return max_value
        return x if x > threshold else slope * (x - threshold)

    found = ReLU(max_value, slope, threshold)(X)
    assert found.tolist() == [[formula(x) for x in X[0].tolist()]]


def test_leaky_relu_and_elu_are_the_formula():
    assert LeakyReLU(0.5)(X).tolist() == [[x if x > 0 else 0.5 * x for x in X[0].tolist()]]
    x = X.double().numpy()
    np.testing.assert_allclose(ELU(0.5, dtype="float64")(x), np.where(x > 0, x, 0.5 * np.expm1(x)), rtol=1e-15)


def test_defaults():
    assert LeakyReLU().negative_slope == 0.3
    assert ELU().alpha == 1.0
    layer = ReLU()
    assert (layer.max_value, layer.negative_slope, layer.threshold) == (None, 0.0, 0.0)


def test_numbers_of_numpy_are_plain_in_the_config():
    assert type(ReLU(np.float32(2.0)).get_config()["max_value"]) is float
    assert type(LeakyReLU(np.int64(1)).get_config()["negative_slope"]) is int


@pytest.mark.parametrize("value", [-1.0, float("nan"), "a", True])
@pytest.mark.parametrize("argument", ["max_value", "negative_slope", "threshold"])
def test_bad_arguments_of_relu(argument, value):
    with pytest.raises(ValueError, match=f"ReLU: {argument}"):
        ReLU(**{argument: value})


def test_bad_arguments():
    for argument in ("negative_slope", "threshold"):
        with pytest.raises(ValueError, match=f"ReLU: {argument}.*None"):
            ReLU(**{argument: None})
    for value in (-0.1, None):
        with pytest.raises(ValueError, match="LeakyReLU: negative_slope"):
            LeakyReLU(value)
    with pytest.raises(ValueError, match="ELU: alpha"):
        ELU(None)


def test_alpha_of_keras_2():
    with pytest.warns(UserWarning, match="negative_slope"):
        assert LeakyReLU(alpha=0.2).negative_slope == 0.2
