"""The table of a model's layers."""

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
