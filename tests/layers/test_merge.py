"""Add, Subtract, Multiply, Average, Maximum, Minimum."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
import torch

import fanin.layers as layers
from fanin.layers import Add, Input, Masking, Maximum, Multiply, Subtract
from fanin.layers.merge import Merge

FORMULAS = {
    "Add": lambda arrays: functools.reduce(operator.add, arrays),
    "Multiply": lambda arrays: functools.reduce(operator.mul, arrays),
    "Average": lambda arrays: functools.reduce(operator.add, arrays) / len(arrays),
    "Maximum": lambda arrays: functools.reduce(np.maximum, arrays),
    "Minimum": lambda arrays: functools.reduce(np.minimum, arrays),
    "Subtract": lambda arrays: arrays[0] - arrays[1],
}
every_kind = pytest.mark.parametrize("kind", FORMULAS)


def arrays(*shapes):
    generator = np.random.default_rng(1)
    return [generator.normal(size=shape) for shape in shapes]


@every_kind
@pytest.mark.parametrize("shapes", [[(5, 3), (5, 3)], [(5, 3, 4), (5, 1, 4)], [(5, 1), (5, 7)], [(5,), (5,)]])
def test_is_the_formula(kind, shapes):
    given = arrays(*shapes)
    expected = FORMULAS[kind](given)
    layer, function = getattr(layers, kind)(dtype="float64"), getattr(layers, kind.lower())
    np.testing.assert_allclose(layer(given), expected, rtol=1e-15)
    np.testing.assert_allclose(function(given, dtype="float64"), expected, rtol=1e-15)
    assert layer.compute_output_shape(shapes) == expected.shape


@every_kind
def test_other_ranks_broadcast_behind_the_batch(kind):
    a, b = arrays((5, 4), (5, 3, 4))
    found = getattr(layers, kind)(dtype="float64")([a, b])
    np.testing.assert_allclose(found, FORMULAS[kind]([a[:, None], b]), rtol=1e-15)


def test_three_inputs_and_one():
    given = arrays(*[(5, 3)] * 3)
    for kind in set(FORMULAS) - {"Subtract"}:
        np.testing.assert_allclose(getattr(layers, kind)(dtype="float64")(given), FORMULAS[kind](given), rtol=1e-15)
        np.testing.assert_array_equal(getattr(layers, kind)(dtype="float64")(given[:1]), given[0])
        with pytest.raises(ValueError, match=r"Layer 'subtract.*3 inputs"):
            Subtract()(given)


def test_functions_take_names_and_symbols():
    symbol = layers.add([Input((3,)), Input((4, 3))], name="total")
    assert symbol.shape == (None, 4, 3)
    assert symbol.layer.name == "total"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 3), (4, 3)], "different batch sizes.*\\(2, 3\\), \\(4, 3\\)"),
        ([(1, 3), (4, 3)], "different batch sizes"),
        ([(2, 3), (2, 4)], "\\(2, 3\\), \\(2, 4\\).*do not broadcast"),
        ([(2, 3, 4), (2, 3)], "do not broadcast"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    layer = Add(name="mine")
    for built in (False, True):
        with pytest.raises(ValueError, match=f"Layer 'mine'.*{message}"):
            layer([torch.ones(shape) for shape in shapes])
        with pytest.raises(ValueError, match=f"Layer 'mine'.*{message}"):
            layer([Input(batch_shape=shape) for shape in shapes])
        with pytest.raises(ValueError, match=f"Layer 'mine'.*{message}"):
            layer.compute_output_shape(shapes)
        with pytest.raises(ValueError, match=rf"Layer 'mine'.*{message}"):
            Add(name="mine").build(shapes)
        assert layer.built is built
        layer([torch.ones(2, 3), torch.ones(2, 3)])


def test_no_list():
    for layer in (Add(name="mine"), Add(name="mine")):
        if layer.built:
            layer([torch.ones(2, 3)])
        with pytest.raises(ValueError, match="Layer 'mine' takes a list"):
            layer(torch.ones(2, 3))
        with pytest.raises(ValueError, match="Layer 'mine' takes a list"):
            layer([])
        with pytest.raises(ValueError, match="Layer 'mine' takes a list"):
            layer(Input((3,)))
        layer([torch.ones(2, 3)])
        with pytest.raises(ValueError, match=r"Layer 'mine' takes a list.*found a tensor of shape \(2, 3\)"):
            layer(torch.ones(2, 3))


def test_unknown_sizes():
    assert Add().compute_output_shape([(None, None, 4), (3, 2, 4)]) == (3, None, 4)
    assert Add().compute_output_shape([(None, 2), (None, 1)]) == (None, 2)


def test_a_shape_of_a_file_builds():
    layer = Add()
    layer([torch.ones(2, 3), torch.ones(2, 3)])
    twin = Add()
    twin.build_from_config(layer.get_build_config())
    assert twin.built


# --- masks ------------------------------------------------------------------------------------------------------------


def masked(values, keep):
    x = torch.tensor(values).reshape(1, -1, 1)
    x._keras_mask = torch.tensor([keep])
    return x


def test_masked_numbers_do_not_count():
    a = masked([1.0, 2.0, 3.0, 4.0], [True, True, False, False])
    b = masked([5.0, 1.0, 2.0, 9.0], [True, False, True, False])
    assert Multiply()([a, b]).flatten().tolist() == [5.0, 2.0, 2.0, 0.0]
    assert Maximum()([a, b]).flatten().tolist()[:3] == [5.0, 2.0, 2.0]
    assert layers.minimum([b, a]).flatten().tolist()[:3] == [1.0, 2.0, 2.0]
    assert Add()([a, b]).flatten().tolist() == [6.0, 3.0, 5.0, 13.0]
    for kind in FORMULAS:
        found = getattr(layers, kind)()([a, b])
        assert found._keras_mask.tolist() == [[True, True, True, False]]


@every_kind
def test_without_a_mask_on_each_there_is_none(kind):
    a, b = masked([1.0, 2.0], [True, False]), torch.ones(1, 2, 1)
    layer = getattr(layers, kind)()
    assert getattr(layer([a, b]), "_keras_mask", None) is None
    assert layer.compute_mask([a, b], [a._keras_mask, None]) is None
    assert layer.compute_mask([a, b]) is None
    with pytest.raises(ValueError, match="a mask or None for each of 2 inputs, found 1"):
        layer.compute_mask([a, b], [a._keras_mask])


def test_masks_of_other_ranks_line_up_as_the_inputs_do():
    a, b = torch.ones(2, 4), torch.ones(2, 3, 4)
    a._keras_mask, b._keras_mask = torch.tensor([True, False]), torch.tensor([[True, False, False]] * 2)
    assert Add()([a, b])._keras_mask.tolist() == [[True, True, True], [True, False, False]]
    assert Multiply()([a, 2 * b]).tolist() == (2 * b).tolist()


def test_masks_on_symbols():
    a, b = Masking()(Input((4, 3))), Masking()(Input((4, 3)))
    assert layers.multiply([a, b]).mask.shape == (None, 4)
    assert layers.multiply([a, Input((4, 3))]).mask is None
    assert layers.add([a]).mask is a.mask


def test_a_subclass_writes_join():
    class Norm(Merge):
        def join(self, inputs, masks):
            return sum(x.square() for x in inputs).sqrt()

    assert Norm()([torch.full((1, 2), 3.0), torch.full((1, 2), 4.0)]).tolist() == [[5.0, 5.0]]
    with pytest.raises(NotImplementedError, match="join"):
        Merge()([torch.ones(1, 2)])
