"""Checks and shapes that random layers share; what they mean to a layer is in the tests of Dropout."""

from __future__ import annotations

import numpy as np
import pytest

from fanin.layers.noise import checked_noise_shape, shape_to_draw


def test_noise_shapes():
    assert checked_noise_shape(None, "who") is None
    assert checked_noise_shape([None, np.int64(2)], "who") == (None, 2)
    assert shape_to_draw(None, (2, 3), "who") == (2, 3)
    assert shape_to_draw((None, 1), (2, 3), "who") == (2, 1)
    with pytest.raises(ValueError, match=r"^who must be a tuple of positive sizes and None, found 0"):
        checked_noise_shape(0, "who")
    with pytest.raises(ValueError, match=r"^who: noise_shape=\(4, 1\) does not broadcast to inputs of shape \(2, 3\)"):
        shape_to_draw((4, 1), (2, 3), "who")
