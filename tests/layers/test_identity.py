"""Identity."""

from __future__ import annotations

import torch

from fanin.layers import Identity, Input


def test_tensors_and_structures_of_them():
    x, y = torch.ones(2, 3), torch.zeros(2, 4, dtype=torch.int64)
    layer = Identity()
    assert layer(x) is x
    assert layer([x, y])[1] is y
    assert layer({"a": x})["a"] is x


def test_symbols_keep_dtype_shape_and_structure():
    x, y = Input((3,)), Input((4,), dtype="int64")
    assert Identity()(y).dtype == torch.int64
    found = Identity()({"a": x, "b": [y]})
    assert found["a"].shape == (None, 3)
    assert found["b"][0].dtype == torch.int64
    assert Identity(dtype="bfloat16")(x).dtype == torch.bfloat16
    assert Identity().compute_output_shape([(None, 3), (None, 4)]) == [(None, 3), (None, 4)]


def test_config_has_the_arguments_of_every_layer():
    config = Identity(activity_regularizer="l1", input_shape=(3,)).get_config()
    assert list(config) == ["name", "trainable", "dtype", "activity_regularizer"]
    assert Identity.from_config(config).get_config() == config
