"""Flatten."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fanin.layers import Flatten, Input


def test_the_numbers_of_a_row_in_their_order():
    x = np.arange(24.0, dtype="f4").reshape(2, 3, 4)
    np.testing.assert_array_equal(Flatten()(x), x.reshape(2, 12))
    np.testing.assert_array_equal(Flatten("channels_first")(x), x.transpose(0, 2, 1).reshape(2, 12))
    assert Flatten()(torch.ones(5)).shape == Flatten("channels_first")(torch.ones(5)).shape == (5, 1)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (0,), (2, 3)])
def test_empty_batches_and_rows(shape):
    assert tuple(Flatten()(torch.ones(shape)).shape) == Flatten().compute_output_shape(shape)


def test_unknown_sizes():
    assert Flatten().compute_output_shape((None, None, 4)) == (None, None)
    assert Flatten()(Input((None, 4))).shape == (None, None)
    assert Flatten()(Input((28, 28), dtype="uint8")).dtype == torch.uint8


def test_errors():
    with pytest.raises(ValueError, match=r"Flatten: data_format.*'last'"):
        Flatten("last")
    with pytest.raises(ValueError, match="min_ndim=1"):
        Flatten()(torch.tensor(1.0))
