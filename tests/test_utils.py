"""Seeds, one-hot rows, and the small helpers for arrays. What Keras computes is in tests/parity/test_utils.py."""

import random

import numpy as np
import pytest
import torch

import fanin
from fanin.utils import (
    clear_session,
    is_keras_tensor,
    normalize,
    pack_x_y_sample_weight,
    pad_sequences,
    set_random_seed,
    split_dataset,
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
    for name in (
        "register_keras_serializable",
        "get_custom_objects",
        "custom_object_scope",
        "CustomObjectScope",
        "deserialize_keras_object",
    ):
        assert getattr(fanin.utils, name) is getattr(fanin.saving, name)
    assert fanin.saving.CustomObjectScope is fanin.saving.custom_object_scope
    for name in ("backend", "epsilon", "floatx", "set_epsilon", "set_floatx", "clear_session"):
        assert getattr(fanin.backend, name) is getattr(fanin.config, name)
    assert fanin.backend.is_keras_tensor is fanin.utils.is_keras_tensor
    assert fanin.mixed_precision.Policy is fanin.mixed_precision.DTypePolicy is fanin.DTypePolicy
    assert fanin.mixed_precision.set_global_policy is fanin.config.set_dtype_policy
    assert fanin.mixed_precision.global_policy is fanin.mixed_precision.dtype_policy is fanin.config.dtype_policy


def test_a_symbolic_tensor_is_one():
    x = fanin.Input((3,))
    assert is_keras_tensor(x)
    assert is_keras_tensor(x + 1)
    assert not any(map(is_keras_tensor, (torch.ones(3), np.ones(3), [x], None)))


def test_normalize_keeps_shapes_on_every_axis():
    x = np.arange(1.0, 25.0).reshape(2, 3, 4)
    for axis in (0, 1, -1):
        found = normalize(x, axis)
        assert found.shape == x.shape
        np.testing.assert_allclose(np.sqrt((found**2).sum(axis)), 1, rtol=1e-12)
        np.testing.assert_allclose(normalize(torch.tensor(x), axis).numpy(), found, rtol=1e-12)
    assert normalize(np.array([3.0, 4.0])).tolist() == [0.6, 0.8]
    assert normalize(torch.tensor([3, 4])).dtype == torch.float32
    torch.testing.assert_close(normalize(torch.tensor([0.03, 0.04])), torch.tensor([0.6, 0.8]))
    assert normalize(np.array([1.0, -4.0]), order=np.inf).tolist() == [0.25, -1.0]
    with pytest.raises(ValueError, match="normalize: expected a positive order, found 0"):
        normalize(x, order=0)
    with pytest.raises(ValueError, match="normalize: expected the number of an axis, found None"):
        normalize(x, None)


def test_rows_of_one_length():
    assert pad_sequences([[1, 2, 3]], maxlen=0).shape == (1, 0)
    assert pad_sequences([]).shape == (0, 0)
    assert pad_sequences([[], torch.tensor([2, 3])]).tolist() == [[0, 0], [2, 3]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1], 2],), "found 2 at position 1"),
        (([[1], [[2]]],), r"expected steps of shape \(\), found \(1,\) at position 1"),
        (([[1]], None, "int32", "left"), "padding must be 'pre' or 'post', found 'left'"),
        (([[1]], None, "int32", "pre", "left"), "truncating must be 'pre' or 'post', found 'left'"),
        (([["a"]], None, "int32", "pre", "pre", "-"), "value '-' does not fit dtype 'int32'"),
    ],
)
def test_what_makes_no_rows(arguments, message):
    with pytest.raises(ValueError, match=f"pad_sequences: .*{message}"):
        pad_sequences(*arguments)


def firsts(dataset):
    return [int(dataset[i][0]) for i in range(len(dataset))]


def test_data_in_two_parts():
    x = np.arange(7)
    left, right = split_dataset([x, x * 10], left_size=3)
    assert firsts(left) + firsts(right) == x.tolist()
    assert [int(y) for _, y in right] == [30, 40, 50, 60]
    assert [firsts(part) for part in split_dataset(x, right_size=0.3)] == [[0, 1, 2, 3, 4], [5, 6]]
    assert [firsts(part) for part in split_dataset(x, 0.5, 0.5)] == [[0, 1, 2, 3], [4, 5, 6]]
    assert [firsts(part) for part in split_dataset(x, np.int64(2), 1)] == [[0, 1], [6]]
    left, right = split_dataset(torch.utils.data.TensorDataset(torch.arange(7)), 4, shuffle=True, seed=1)
    assert sorted(firsts(left) + firsts(right)) == x.tolist()
    assert firsts(left) == firsts(split_dataset(x, 4, shuffle=True, seed=1)[0]) != x[:4].tolist()


def test_parts_are_data_for_fit():
    x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
    train, test = split_dataset((x, y), left_size=0.75)
    model = fanin.Sequential([fanin.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(train, batch_size=2, validation_data=test, epochs=1, verbose=0)
    assert list(history.history) == ["loss", "val_loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected left_size or right_size, found neither"),
        ({"left_size": 4}, "left_size must be a number of rows below 4 .* found 4"),
        ({"right_size": 0}, "right_size must be .* found 0"),
        ({"left_size": 1.0}, "left_size must be .* found 1.0"),
        ({"left_size": True}, "left_size must be .* found True"),
        ({"left_size": 0.1}, "of 4 rows, the sides would get 0 and 4"),
        ({"left_size": 3, "right_size": 2}, "of 4 rows, the sides would get 3 and 2"),
    ],
)
def test_parts_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=f"split_dataset: {message}"):
        split_dataset(np.arange(4), **arguments)


def test_arrays_of_different_lengths_are_not_split():
    with pytest.raises(ValueError, match=r"equally many rows, found \[4, 3\]"):
        split_dataset([np.arange(4), np.arange(3)], 1)
