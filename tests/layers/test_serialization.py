"""Layers as plain JSON data, and back. Beside Keras's in tests/parity/test_utils.py."""

from __future__ import annotations

import json

import pytest
import torch

import fanin
from fanin.layers import Dense, Layer, deserialize, serialize


class Doubled(Layer):
    def call(self, inputs):
        return 2 * inputs


def test_a_layer_comes_back_with_new_weights():
    layer = Dense(3, "relu", kernel_initializer="ones", name="last")
    layer.build((None, 2))
    again = deserialize(json.loads(json.dumps(serialize(layer))))
    assert again.get_config() == layer.get_config()
    assert again.kernel.shape == (2, 3)
    assert again.kernel is not layer.kernel


def test_the_form_of_keras_2_and_custom_objects():
    assert deserialize({"class_name": "Dense", "config": {"units": 3}}).units == 3
    config = {"class_name": "Doubled", "config": {"name": "two"}}
    assert deserialize(config, {"Doubled": Doubled}).name == "two"
    with pytest.raises(ValueError, match="Unknown class 'Doubled'"):
        deserialize(config)


@pytest.mark.parametrize(
    "config",
    [
        None,
        "Dense",
        {},
        fanin.losses.serialize(fanin.losses.Huber()),
        fanin.optimizers.serialize(fanin.optimizers.SGD()),
    ],
)
def test_what_describes_no_layer(config):
    with pytest.raises(ValueError, match=r"layers\.deserialize: expected the config of a layer"):
        deserialize(config)


@pytest.mark.parametrize("wrong", [None, "dense", Dense, torch.nn.ReLU()])
def test_what_is_no_layer(wrong):
    with pytest.raises(TypeError, match=r"layers\.serialize: expected a layer"):
        serialize(wrong)
