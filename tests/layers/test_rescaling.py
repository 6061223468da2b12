"""Rescaling."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fanin.layers import Rescaling
from fanin.registry import deserialize, serialize


@pytest.mark.parametrize("scale", [2, 0.5, [1.0, 2.0, 3.0], np.array([[0.1], [0.2]]), torch.tensor(3.0)])
@pytest.mark.parametrize("offset", [0.0, -1, np.array([1, 2, 3])])
def test_is_the_formula(scale, offset):
    x = np.random.default_rng(1).normal(size=(4, 2, 3))
    found = Rescaling(scale, offset, dtype="float64")(x)
    np.testing.assert_allclose(found, x * np.asarray(scale) + np.asarray(offset), rtol=1e-15)
    layer = Rescaling(scale, offset)
    again = deserialize(json.loads(json.dumps(serialize(layer))))
    assert torch.equal(again(x), layer(x))


def test_pixels():
    x = np.array([[0, 51, 255]], dtype="uint8")
    np.testing.assert_allclose(Rescaling(1 / 127.5, -1)(x), [[-1, -0.6, 1]], rtol=1e-6)
    assert Rescaling(2, dtype="bfloat16")(x).dtype == torch.bfloat16


def test_arguments_stay_as_given_and_follow_the_inputs():
    scale = [1.0, 2.0]
    layer = Rescaling(scale)
    assert layer.scale is scale
    assert layer(torch.ones(1, 2, dtype=torch.float64)).dtype == torch.float32
    assert layer(torch.ones(1, 2, device="meta")).is_meta


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"Rescaling: scale must be a number.*None"):
        Rescaling(None)
    with pytest.raises(TypeError, match="Rescaling: offset"):
        Rescaling(1.0, "a")
