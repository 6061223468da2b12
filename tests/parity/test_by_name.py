"""Layers of several inputs, written once, in Keras and in fanin: what `build` and `call` get for each argument."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch

import fanin

LEFT, RIGHT = torch.arange(8.0).reshape(2, 4), torch.ones(2, 5)


def two(K):
    """A class of a layer that notes the shapes and masks that it was given."""

    class Two(K.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.supports_masking = True
            self.masked = []

        def build(self, left_shape, right_shape):
            self.shapes = tuple(left_shape), tuple(right_shape)
            self.left = self.add_weight(shape=(left_shape[-1], 3), initializer="ones", name="left")
            self.right = self.add_weight(shape=(right_shape[-1], 3), initializer="ones", name="right")

        def call(self, left, right, left_mask=None, right_mask=None):
            self.masked.append((left_mask is not None, right_mask is not None))
            return left @ self.left + right @ self.right

        def compute_output_shape(self, left_shape, right_shape):
            return (*left_shape[:-1], right_shape[-1] - 2)

        def compute_mask(self, inputs, mask=None):
            return None

    return Two


@pytest.mark.parametrize("K", [keras, fanin])
@pytest.mark.parametrize("style", ["places", "second by name", "names"])
def test_build_gets_each_shape(K, style):
    layer = two(K)()
    outputs = {
        "places": lambda: layer(LEFT, RIGHT),
        "second by name": lambda: layer(LEFT, right=RIGHT),
        "names": lambda: layer(left=LEFT, right=RIGHT),
    }[style]()
    assert layer.shapes == ((2, 4), (2, 5))
    np.testing.assert_array_equal(outputs.detach().numpy(), [[11.0] * 3, [27.0] * 3])
    noted = layer.get_build_config()["shapes_dict"]
    assert {name: tuple(shape) for name, shape in noted.items()} == {"left_shape": (2, 4), "right_shape": (2, 5)}


@pytest.mark.parametrize("K", [keras, fanin])
def test_a_build_config_builds(K):
    layer = two(K)()
    layer.build_from_config({"shapes_dict": {"left_shape": [None, 4], "right_shape": [None, 5]}})
    assert layer.built
    assert layer.shapes == ((None, 4), (None, 5))


@pytest.mark.parametrize("K", [keras, fanin])
def test_in_a_graph(K):
    left, right = K.Input((4,)), K.Input((5,))
    layer = two(K)()
    output = layer(left, right=right)
    assert tuple(output.shape) == (None, 3)
    assert layer.shapes == ((None, 4), (None, 5))
    found = K.Model([left, right], output)([LEFT, RIGHT])
    np.testing.assert_array_equal(found.detach().numpy(), [[11.0] * 3, [27.0] * 3])


@pytest.mark.parametrize("K", [keras, fanin])
def test_each_mask_comes_by_its_name(K):
    tokens, other = K.Input((3,), dtype="int32"), K.Input((3, 5))
    layer = two(K)()
    output = layer(K.layers.Embedding(6, 4, mask_zero=True)(tokens), other)
    model = K.Model([tokens, other], output)
    layer.masked.clear()
    model([torch.tensor([[1, 2, 0]]), torch.ones(1, 3, 5)])
    assert layer.masked == [(True, False)]


@pytest.mark.parametrize("K", [keras, fanin])
def test_a_mask_that_is_given_stays(K):
    layer = two(K)()
    given = torch.tensor([[True, False]])
    layer(torch.ones(1, 2, 4), torch.ones(1, 2, 5), right_mask=given)
    assert layer.masked[-1] == (False, True)


@pytest.mark.parametrize("K", [keras, fanin])
def test_a_shape_of_no_argument_is_an_error(K):
    class Bad(K.layers.Layer):
        def build(self, left_shape, wrong_shape):
            pass

        def call(self, left, right):
            return left

    with pytest.raises(ValueError, match="wrong_shape"):
        Bad()(LEFT, RIGHT)


def test_files_keep_the_shapes(tmp_path):
    kind = two(fanin)
    fanin.saving.register_keras_serializable("test_by_name")(kind)
    left, right = fanin.Input((4,)), fanin.Input((5,))
    model = fanin.Model([left, right], kind(name="two")(left, right))
    model.save(tmp_path / "two.keras")
    loaded = fanin.models.load_model(tmp_path / "two.keras")
    assert loaded.get_layer("two").shapes == ((None, 4), (None, 5))
    torch.testing.assert_close(loaded([LEFT, RIGHT]), model([LEFT, RIGHT]))
