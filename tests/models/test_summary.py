"""The table of a model's layers."""

import pytest
import torch

import fanin
from fanin.layers import Dense


def lines(model, **arguments):
    printed = []
    model.summary(print_fn=printed.append, **arguments)
    return printed[0].splitlines()


def test_layers_shapes_and_counts():
    model = fanin.Sequential([Dense(32, input_shape=(16,)), torch.nn.GELU(), Dense(10, name="last")], name="net")
    text = lines(model, line_length=80)
    assert text[0].strip() == 'Model: "net"'
    assert any("dense (Dense)" in line and "(None, 32)" in line and "544" in line for line in text)
    assert any("gelu (GELU)" in line and "(None, 32)" in line for line in text)
    assert any("last (Dense)" in line and "(None, 10)" in line and "330" in line for line in text)
    assert "Total params: 874 (3.41 KB)" in text
    assert all(len(line) <= 80 for line in text)


def test_frozen_weights_are_counted_apart():
    model = fanin.Sequential([Dense(4, input_shape=(3,)), Dense(2)])
    model.layers[0].trainable = False
    text = lines(model)
    assert "Trainable params: 10" in text
    assert "Non-trainable params: 16" in text


def test_before_the_shape_is_known():
    assert any("not known yet" in line for line in lines(fanin.Sequential([Dense(4)])))


def test_it_prints(capsys):
    fanin.Sequential([Dense(4, input_shape=(3,))]).summary()
    assert "dense (Dense)" in capsys.readouterr().out


def test_models_within_the_model_and_what_trains():
    x = fanin.Input((3,))
    inner = fanin.Sequential([fanin.Input((3,)), Dense(2, name="inside")], name="inner")
    model = fanin.Model(x, Dense(1, name="last")(inner(x)))
    inner.trainable = False
    assert not any("inside" in line for line in lines(model, line_length=90))
    text = lines(model, line_length=90, expand_nested=True, show_trainable=True)
    inside = next(line for line in text if "inside" in line)
    assert "│   inside (Dense)" in inside
    assert "(None, 2)" in inside
    assert "yes" not in inside
    assert any("last (Dense)" in line and "yes" in line for line in text)
    assert not any("Connected" in line for line in text)


def test_a_range_of_layers():
    inner = fanin.Sequential([fanin.Input((3,)), Dense(2, name="inside")], name="inner")
    model = fanin.Sequential([Dense(3, input_shape=(3,), name="first"), inner, torch.nn.GELU(), Dense(1, name="last")])
    text = lines(model, line_length=90, expand_nested=True, layer_range=("inner", "gelu"))
    names = [name for name in ("first", "inner", "inside", "gelu", "last") if any(f"{name} (" in line for line in text)]
    assert names == ["inner", "inside", "gelu"]
    assert "Total params: 23 (92 B)" in text


@pytest.mark.parametrize(
    ("layer_range", "message"),
    [
        (("dense", "nothing"), "'nothing' matches no layer. The layers: dense"),
        (("nothing", "dense"), "'nothing' matches no layer"),
        (("dense",), r"expected two names or regular expressions, found \('dense',\)"),
        ("ab", "expected two names or regular expressions, found 'ab'"),
        ((0, 1), r"expected two names or regular expressions, found \(0, 1\)"),
        (("dense", "("), r"'\(' is no regular expression"),
    ],
)
def test_ranges_that_are_none(layer_range, message):
    with pytest.raises(ValueError, match=f"layer_range: {message}"):
        lines(fanin.Sequential([Dense(4)]), layer_range=layer_range)
