"""Reshape."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fanin.layers import Input, Reshape


@pytest.mark.parametrize("target", [(12,), (-1,), (2, 6), (3, -1, 2), (1, 12, 1), [4, 3]])
def test_is_numpys(target):
    x = np.random.default_rng(1).normal(size=(5, 3, 4)).astype("f4")
    np.testing.assert_array_equal(Reshape(target)(x), x.reshape(5, *target))


def test_rows_of_one_number():
    assert Reshape(())(torch.ones(5, 1)).shape == (5,)
    assert Reshape((1,))(torch.ones(5)).shape == (5, 1)


@pytest.mark.parametrize(
    ("shape", "target", "expected"),
    [
        ((None, 3, 4), (6, -1), (None, 6, 2)),
        ((None, None, 4), (2, -1), (None, 2, None)),
        ((None, None, 4), (2, 8), (None, 2, 8)),
        ((7, 0), (0, 3), (7, 0, 3)),
    ],
)
def test_shapes_without_running(shape, target, expected):
    layer = Reshape(target)
    assert layer.compute_output_shape(shape) == expected
    assert layer(Input(batch_shape=shape)).shape == expected


def test_an_empty_batch():
    assert Reshape((2, -1))(torch.ones(0, 4)).shape == (0, 2, 2)


def test_integers_stay_integers():
    assert Reshape((2,))(Input((2, 1), dtype="int32")).dtype == torch.int32
    assert Reshape((2,))(torch.ones(3, 2, 1, dtype=torch.int32)).dtype == torch.int32


@pytest.mark.parametrize("target", [(-1, -1), (-2,), (1.5,), "ab", 3, (None,), (True,)])
def test_bad_targets(target):
    with pytest.raises(ValueError, match="Reshape: target_shape must be"):
        Reshape(target)


@pytest.mark.parametrize(("shape", "target"), [((2, 5), (2, 2)), ((2, 5), (2, -1)), ((2, 5), (0, -1))])
def test_rows_that_do_not_fit(shape, target):
    for call in (lambda layer: layer(torch.ones(shape)), lambda layer: layer(Input(shape[1:]))):
        with pytest.raises(ValueError, match=r"Layer 'mine': rows of shape \(5,\) have 5 numbers.*target_shape="):
            call(Reshape(target, name="mine"))
