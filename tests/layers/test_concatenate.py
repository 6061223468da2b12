"""Concatenate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fanin.layers import Concatenate, Input, Masking, concatenate


@pytest.mark.parametrize(
    ("axis", "shapes"),
    [(-1, [(5, 3), (5, 2)]), (1, [(5, 3), (5, 2), (5, 1)]), (-2, [(5, 3, 4), (5, 2, 4)]), (0, [(5, 3), (2, 3)])],
)
def test_is_numpys(axis, shapes):
    given = [np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)]
    expected = np.concatenate(given, axis)
    layer = Concatenate(axis, dtype="float64")
    np.testing.assert_array_equal(layer(given), expected)
    np.testing.assert_array_equal(concatenate(given, axis, dtype="float64"), expected)
    assert layer.compute_output_shape(shapes) == expected.shape


def test_unknown_sizes():
    layer = Concatenate(1)
    assert layer.compute_output_shape([(None, None, 4), (None, 3, 4)]) == (None, None, 4)
    assert concatenate([Input((3,)), Input((4,))]).shape == (None, 7)
    assert concatenate([Input((3,), dtype="int64"), Input((4,), dtype="int64")]).dtype == torch.int64
    assert concatenate([Input((3,), dtype="int64"), Input((4,))]).dtype == torch.float32


@pytest.mark.parametrize(
    ("axis", "shapes", "message"),
    [
        (-1, [(2, 3, 4), (2, 5, 4)], "differ in another axis than -1"),
        (-1, [(2, 3), (4, 3)], "differ in another axis than -1"),
        (-1, [(2, 3), (2, 3, 4)], "inputs of one rank"),
        (2, [(2, 3), (2, 3)], "axis 2 does not exist in an input of rank 2"),
    ],
)
def test_shapes_that_do_not_fit(axis, shapes, message):
    layer = Concatenate(axis, name="mine")
    for inputs in ([torch.ones(shape) for shape in shapes], [Input(batch_shape=shape) for shape in shapes]):
        with pytest.raises(ValueError, match=f"Layer 'mine'.*{message}"):
            layer(inputs)
    assert not layer.built


def test_bad_arguments():
    with pytest.raises(TypeError, match="Concatenate: axis"):
        Concatenate("a")
    with pytest.raises(ValueError, match="takes a list"):
        Concatenate()(torch.ones(2, 3))


def test_masks():
    a, b = torch.ones(1, 2, 3), torch.ones(1, 2, 4)
    a._keras_mask = torch.tensor([[True, False]])
    assert Concatenate()([a, b])._keras_mask.tolist() == [[True, True]]  # what has no mask counts
    assert Concatenate()([a, 2 * a])._keras_mask.tolist() == [[True, True]]
    assert Concatenate(1)([a, torch.ones(1, 3, 3)])._keras_mask.tolist() == [[True, False, True, True, True]]
    b._keras_mask = torch.tensor([[False, False]])
    assert Concatenate()([a, b])._keras_mask.tolist() == [[True, False]]
    assert Concatenate().compute_mask([a, b], [None, None]) is None
    assert Concatenate().compute_mask([a, b], [torch.ones_like(a, dtype=torch.bool), None]).tolist() == [[True, True]]


def test_masks_on_symbols():
    a = Masking()(Input((4, 3)))
    assert concatenate([a, Input((4, 2))]).mask.shape == (None, 4)
    assert concatenate([a, Input((2, 3))], axis=1).mask.shape == (None, 6)
    assert concatenate([Input((2,)), Input((2,))]).mask is None
