"""Seeds and one-hot rows."""

import random

import numpy as np
import pytest
import torch

import fanin
from fanin.utils import (
    clear_session,
    pack_x_y_sample_weight,
    set_random_seed,
    to_categorical,
    unpack_x_y_sample_weight,
)


def test_one_seed_for_all_generators():
    draws = []
    for _ in range(2):
        set_random_seed(np.int64(7))
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, None])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="set_random_seed"):
        set_random_seed(seed)


def test_one_hot_rows():
    np.testing.assert_array_equal(to_categorical([1, 0, 2]), np.eye(3, dtype="float32")[[1, 0, 2]])
    assert to_categorical([[0], [1]], 4).shape == (2, 4)
    assert to_categorical(np.zeros((2, 3), int), 2).shape == (2, 3, 2)
    assert to_categorical([], 3).shape == (0, 3)
    for bad, classes in (([-1], None), ([3], 3)):
        with pytest.raises(ValueError, match="class numbers"):
            to_categorical(bad, classes)


def test_automatic_names_start_again():
    names = []
    for _ in range(2):
        names.append([fanin.layers.Dense(1).name, fanin.layers.Dense(1).name])
        clear_session()
    assert names == [["dense", "dense_1"]] * 2


def test_the_parts_of_a_batch(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import keras

    for parts in [(1,), (1, 2), (1, 2, 3), ([1, 2],), ((1,), 2), (1, None, 3)]:
        packed = pack_x_y_sample_weight(*parts)
        assert packed == keras.utils.pack_x_y_sample_weight(*parts)
        assert unpack_x_y_sample_weight(packed) == keras.utils.unpack_x_y_sample_weight(packed)
    assert unpack_x_y_sample_weight([1, 2]) == (1, 2, None)
    for bad in [(), (1, 2, 3, 4)]:
        with pytest.raises(ValueError, match="unpack_x_y_sample_weight"):
            unpack_x_y_sample_weight(bad)


def test_names_that_keras_keeps_in_two_places():
    for name in ("register_keras_serializable", "custom_object_scope", "deserialize_keras_object"):
        assert getattr(fanin.utils, name) is getattr(fanin.saving, name)
