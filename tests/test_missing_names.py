"""Names of Keras that fanin lacks say what takes their place, and every one of them is Keras's and is missing here."""

import importlib
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import pytest

import fanin
from fanin.missing_names import _INSTEAD


@pytest.mark.parametrize("module", _INSTEAD)
def test_the_names_are_keras_s_and_not_ours(module):
    theirs = importlib.import_module(module.replace("fanin", "keras", 1))
    for name, instead in _INSTEAD[module].items():
        assert hasattr(theirs, name)
        with pytest.raises(AttributeError) as caught:
            getattr(importlib.import_module(module), name)
        assert str(caught.value) == f"{module} has no {name!r}. Instead: {instead}."


@pytest.mark.parametrize("name", ["Conv2D", "MaxPooling1D", "LSTM", "MultiHeadAttention", "Bidirectional"])
def test_layers_that_torch_has(name):
    assert hasattr(keras.layers, name)
    with pytest.raises(AttributeError, match=r"Instead: the torch\.nn\.Module, which is a layer"):
        getattr(fanin.layers, name)


def test_other_names_are_missing_as_ever():
    for module in (fanin, fanin.layers, fanin.utils):
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'nonsense'"):
            module.nonsense  # noqa: B018
    assert not hasattr(fanin, "ops")
    with pytest.raises(ImportError, match="cannot import name 'Lambda'"):
        exec("from fanin.layers import Lambda")


def test_assigning_to_a_weight_as_in_keras_says_how_to_write_it():
    class Counter(fanin.layers.Layer):
        def build(self, input_shape):
            self.calls = self.add_weight(name="calls", shape=(), initializer="zeros", trainable=False)

        def call(self, inputs):
            self.calls.assign_add(1.0)
            return inputs

    with pytest.raises(ValueError, match=r"'assign_add'\. A weight is a tensor: copy_, add_ and sub_ are"):
        Counter()(fanin.Input((3,)))
