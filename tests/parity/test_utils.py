"""Helpers for arrays, settings and ranges of layers, beside Keras's."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
import torch

import fanin


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_normalize(order, axis, dtype):
    x = np.random.default_rng(0).integers(-5, 5, (4, 3)).astype(dtype)
    x[1] = 0
    ours, theirs = (module.normalize(x, axis, order) for module in (fanin.utils, keras.utils))
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
    ours, theirs = (module.normalize(torch.tensor(x), axis, order) for module in (fanin.utils, keras.utils))
    if dtype != "int64" or order == 2:  # the others have integers from Keras, or an error
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs)


SEQUENCES = {
    "numbers": [[1], [2, 3], [4, 5, 6]],
    "with an empty one": [[], [2, 3]],
    "vectors": [[[1, 2]], [[3, 4], [5, 6]]],
    "arrays": [np.arange(3), np.arange(5)],
}


@pytest.mark.parametrize("sequences", SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize("maxlen", [None, 2, 4])
@pytest.mark.parametrize("where", ["pre", "post"])
def test_pad_sequences(sequences, maxlen, where):
    for further in ({"padding": where}, {"truncating": where, "value": -1.5, "dtype": "float32"}):
        ours, theirs = (module.pad_sequences(sequences, maxlen, **further) for module in (fanin.utils, keras.utils))
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_pad_sequences_of_strings():
    arguments = ([["a"], ["bc", "d"]], None, object, "post", "pre", "-")
    ours, theirs = fanin.utils.pad_sequences(*arguments), keras.utils.pad_sequences(*arguments)
    assert ours.tolist() == theirs.tolist() == [["a", "-"], ["bc", "d"]]


@pytest.mark.parametrize("sizes", [(3, None), (None, 3), (0.25, None), (0.25, 0.75), (4, 6)])
def test_split_dataset(sizes):
    x = np.arange(10)
    ours, theirs = (
        [[int(part[i][0]) for i in range(len(part))] for part in module.split_dataset(x, *sizes, shuffle=True, seed=3)]
        for module in (fanin.utils, keras.utils)
    )
    assert ours == theirs


def test_a_new_session_forgets_the_policy():
    for module in (fanin, keras):
        module.mixed_precision.set_global_policy("mixed_bfloat16")
        assert module.layers.Dense(2).compute_dtype == "bfloat16"
        module.backend.clear_session()
        assert module.mixed_precision.global_policy().name == "float32"
    assert fanin.backend.backend() == keras.backend.backend() == fanin.config.backend()


def shown(library, layer_range):
    layers = [library.layers.Dense(2, name=name) for name in ("in_1", "mid_1", "mid_2", "mid_10", "out_1")]
    first = library.Input((3,), name="begin")
    h = first
    for layer in layers:
        h = layer(h)
    lines = []
    library.Model(first, h).summary(print_fn=lines.append, line_length=100, layer_range=layer_range)
    return [layer.name for layer in layers if f"{layer.name} (" in lines[0]]


@pytest.mark.parametrize(
    "layer_range",
    [None, ("mid_1", "mid_2"), ("mid_1", "mid_1"), ("mid_1$", "mid_1$"), ["begin", ".*2"], ("out", "in"), ("", "mid")],
)
def test_the_layers_of_a_summary(layer_range):
    assert shown(fanin, layer_range) == shown(keras, layer_range)


def test_layers_as_data():
    for library, other in ((fanin, keras), (keras, fanin)):
        layer = library.layers.Dense(3, "relu", kernel_regularizer="l2", name="last")
        again = other.layers.deserialize(library.layers.serialize(layer))
        assert (again.name, again.units, again.activation.__name__) == ("last", 3, "relu")
        model = library.Sequential([library.Input((4,)), library.layers.Dense(2)], name="net")
        assert other.layers.deserialize(library.layers.serialize(model)).output_shape == (None, 2)


@pytest.mark.parametrize("name", ["custom_object_scope", "deserialize_keras_object"])
def test_arguments_have_keras_names(name: str) -> None:
    theirs = inspect.signature(getattr(keras.saving, name)).parameters.values()
    ours = inspect.signature(getattr(fanin.saving, name)).parameters
    assert list(ours) == [one.name for one in theirs if one.kind is not one.VAR_KEYWORD]
