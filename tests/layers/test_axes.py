"""Axes counted from the front or the end."""

from __future__ import annotations

import numpy as np
import pytest

from fanin.layers.axes import checked_axes, from_front, known_sizes, smallest_shape


def test_one_axis_or_several_become_a_list():
    assert checked_axes(-1, "axis") == [-1]
    assert checked_axes(np.int64(2), "axis") == [2]
    assert checked_axes((1, -1), "axis") == [1, -1]
    for wrong in (1.0, "1", None, [1, None]):
        with pytest.raises(TypeError, match="BN: axis must be an integer or several, found"):
            checked_axes(wrong, "BN: axis")


def test_axes_from_the_front():
    assert from_front([-1, 1], 4, "x") == (1, 3)
    assert from_front([], 4, "x") == ()
    with pytest.raises(ValueError, match=r"^x: axis -3 does not exist in an input of rank 2"):
        from_front([1, -3], 2, "x")
    with pytest.raises(ValueError, match="name the same axis twice in an input of rank 2"):
        from_front([1, -1], 2, "x")


def test_sizes_must_be_known():
    assert known_sizes((None, 3, 4), (1, 2), "x") == (3, 4)
    with pytest.raises(ValueError, match=r"^x: the sizes of axes \[0, 1\] must be known, found shape \(None, 3, 4\)"):
        known_sizes((None, 3, 4), (0, 1), "x")


@pytest.mark.parametrize(
    ("axes", "sizes", "shape"),
    [
        ([-1], (3,), (None, 3)),
        ([1], (3,), (None, 3)),
        ([3], (3,), (None, None, None, 3)),
        ([-3], (3,), (3, None, None)),
        ([-1, -2], (3, 4), (3, 4)),
        ([2, 1], (3, 4), (None, 3, 4)),
        ([], (), (None, None)),
        ([1, -1], (3, 4), None),
        ([1], (3, 4), None),
    ],
)
def test_the_smallest_shape(axes, sizes, shape):
    assert smallest_shape(axes, sizes) == shape
