"""Masking."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fanin
from fanin.layers import Dense, Input, Masking


@pytest.mark.parametrize("value", [0.0, -1.0, 0.5, np.array([1.0, 2.0])])
def test_mask_and_outputs(value):
    x = np.random.default_rng(1).choice([0.0, -1.0, 0.5, 1.0, 2.0], size=(40, 5, 2)).astype("f4")
    found = Masking(value)(x)
    keep = (x != value).any(-1)
    np.testing.assert_array_equal(found._keras_mask, keep)
    np.testing.assert_array_equal(found, np.where(keep[..., None], x, 0))
    assert 0 < keep.sum() < keep.size


def test_the_input_stays_as_it_is():
    x = torch.full((1, 1, 2), 3.0)
    Masking(3.0)(x)
    assert x.tolist() == [[[3.0, 3.0]]]
    assert getattr(x, "_keras_mask", None) is None


def test_on_symbols_and_through_a_model():
    layer = Masking()
    symbol = layer(Input((4, 3)))
    assert symbol.mask.shape == (None, 4)
    assert symbol.mask.dtype == torch.bool
    x = torch.zeros(2, 4, 3)
    x[0, 1] = 1
    found = fanin.Sequential([Input((4, 3)), Masking(), Dense(2)])(x)
    assert found._keras_mask.tolist() == [[False, True, False, False], [False] * 4]


def test_integers_and_low_precision():
    assert Masking()(torch.tensor([[[0, 0], [1, 0]]])).dtype == torch.int64
    assert Masking()(Input((4, 3), dtype="int64")).dtype == torch.int64
    x = torch.tensor([[[0.1], [0.2]]])
    assert Masking(0.1, dtype="mixed_bfloat16")(x)._keras_mask.tolist() == [[False, True]]


def test_the_value_of_a_file():
    layer = Masking(np.array([1.0, 2.0]))
    assert layer.get_config()["mask_value"]["class_name"] == "__numpy__"
    np.testing.assert_array_equal(Masking.from_config(layer.get_config()).mask_value, [1.0, 2.0])
    with pytest.raises(TypeError, match="Masking: mask_value"):
        Masking(None)
