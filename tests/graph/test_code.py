"""Straight-line code from nodes: names, constants, structures."""

from __future__ import annotations

import math
import traceback

import pytest
import torch

from fanin import Input, Model
from fanin.graph.code import compile_calls
from fanin.graph.node import ancestors
from fanin.layers import Dense, Layer


def code(inputs, outputs):
    symbols = outputs if isinstance(outputs, list) else [outputs]
    return compile_calls("test", inputs, ancestors(symbols), outputs)


def test_constants_of_all_kinds():
    x = Input((3,))
    table = torch.arange(3.0)
    y = torch.clamp(x + table, min=-math.inf, max=2.5)[:, 1:].sum(dim=(0, 1), keepdim=True)
    run = code([x], y)
    value = torch.randn(4, 3)
    assert torch.equal(run(value), torch.clamp(value + table, max=2.5)[:, 1:].sum(dim=(0, 1), keepdim=True))


@pytest.mark.parametrize("name", ["class", "sum", "v0", "run", "result", "2nd", "größe", "a-b", "print"])
def test_any_name_of_a_layer_will_do(name):
    x = Input((3,))
    layer, other = Dense(3, name=name), Dense(2, name=f"{name} ")
    model = Model(x, other(layer(x)))
    value = torch.randn(2, 3)
    assert torch.equal(model(value), other(layer(value)))


def test_structures_in_and_out():
    class Pair(Layer):
        def call(self, inputs):
            first, options = inputs["a"], inputs["b"]
            return {"sum": first + options[0], "rest": (first - options[1], 3)}

    x, y, z = Input((2,)), Input((2,)), Input((2,))
    out = Pair()({"a": x, "b": [y, (z)]})
    run = code([x, y, z], [out["rest"][0], out["sum"]])
    a, b, c = torch.randn(3, 1, 2)
    difference, total = run(a, b, c)
    assert torch.equal(difference, a - c)
    assert torch.equal(total, a + b)


def test_a_list_that_the_caller_changes_later_is_remembered_as_it_was():
    class Total(Layer):
        def call(self, inputs):
            return sum(inputs)

    x = Input((2,))
    seen = [x, x]
    y = Total()(seen)
    seen.append(y)
    value = torch.randn(1, 2)
    assert torch.equal(Model(x, y)(value), value + value)


def test_an_error_shows_the_line_and_the_layer():
    class Fails(Layer):
        def compute_output_shape(self, input_shape):
            return input_shape

        def call(self, inputs):
            if not hasattr(inputs, "fake_mode"):
                raise RuntimeError("no luck")
            return inputs

    x = Input((2,))
    model = Model(x, Fails(name="the_one")(Dense(2)(x)))
    with pytest.raises(RuntimeError, match="no luck") as caught:
        model(torch.ones(1, 2))
    shown = "".join(traceback.format_exception(caught.value))
    assert "= the_one(v0)" in shown
    assert "the calls of functional" in shown
