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
