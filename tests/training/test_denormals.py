"""Denormal numbers count as 0 inside the block, and as before outside."""

import numpy as np
import torch

from fanin.training.denormals import flush_denormals


def is_flushed():
    return bool(torch.full((4,), 1e-39).mul(0.5).eq(0).all()) and np.float32(1e-40) * np.float32(1) == 0


def test_only_inside_the_block():
    assert not is_flushed()
    with flush_denormals():
        assert is_flushed()
        with flush_denormals():
            assert is_flushed()
        assert is_flushed()
    assert not is_flushed()
