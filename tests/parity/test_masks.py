"""The masks that `call` and `compute_mask` get, for one layer written once, in Keras and in fanin."""

from __future__ import annotations

import keras
import pytest
import torch

import fanin
from fanin.graph.tree import leaves, tree_map

MASK = torch.tensor([[True, False, True], [True, True, False]])


def noting(K):
    """A layer that notes the masks that it gets, and the place where."""

    class Notes(K.layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True
            self.noted = {}

        def call(self, inputs, mask=None):
            self.noted["call"] = tree_map(lambda leaf: leaf is not None, mask)
            return next(leaves(inputs)) * 1.0

        def compute_mask(self, inputs, mask=None):
            self.noted["compute_mask"] = tree_map(lambda leaf: leaf is not None, mask)

    return Notes()


def on_tensors(K, masked):
    x = torch.ones(2, 3, 4)
    if masked:
        x._keras_mask = MASK
    return x


def in_a_graph(K, masked):
    x = K.Input((3, 4))
    return K.layers.Masking()(x) if masked else x


INPUTS = {
    "one": lambda x, m: x,
    "one, masked": lambda x, m: m,
    "a list of one": lambda x, m: [m],
    "two": lambda x, m: [x, x],
    "two, one of them masked": lambda x, m: [x, m],
    "a tuple": lambda x, m: (m, x),
    "a dict": lambda x, m: {"b": m, "a": x},
    "nested": lambda x, m: [x, (m, {"q": x})],
}


@pytest.mark.parametrize("make", [on_tensors, in_a_graph])
@pytest.mark.parametrize("inputs", INPUTS)
def test_masks_have_the_structure_of_the_inputs(make, inputs):
    found = []
    for K in (keras, fanin):
        layer = noting(K)
        layer(INPUTS[inputs](make(K, False), make(K, True)))
        found.append(layer.noted)
    assert found[0].keys() == {"call", "compute_mask"}
    assert found[1] == found[0]


@pytest.mark.filterwarnings("ignore:.*does not support masking")  # says Keras's model, and hands them on all the same
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")  # for the key that is not used
@pytest.mark.parametrize("K", [keras, fanin])
def test_a_mask_of_a_model_stays_with_its_input(K):
    a, b = K.Input((3, 4), name="a"), K.Input((3, 4), name="b")
    model = K.Model({"a": a, "b": b}, {"a": K.layers.Activation("relu")(a), "b": K.layers.Activation("relu")(b)})
    for given, masks in [
        ({"b": on_tensors(K, True), "a": on_tensors(K, False)}, None),
        ({"b": on_tensors(K, True), "a": on_tensors(K, False), "unused": on_tensors(K, False)}, None),
        ({"b": on_tensors(K, False), "a": on_tensors(K, False)}, {"a": None, "b": MASK}),
    ]:
        found = model(given, mask=masks)
        assert getattr(found["a"], "_keras_mask", None) is None
        assert torch.equal(found["b"]._keras_mask, MASK)
