"""Children of a model that are replaced after it was made, as PyTorch's tools do."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fanin import Input, Model, Sequential
from fanin.layers import Dense, TorchModule
from fanin.models import clone_model


class Twice(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, inputs):
        return 2 * self.inside(inputs)


def small():
    return Sequential([Input((8,)), Dense(16), Dense(3)])


@pytest.mark.parametrize("was_used", [False, True])
@pytest.mark.parametrize("by_setattr", [False, True])
def test_a_sequential_calls_what_stands_in_a_place(was_used, by_setattr):
    model, x, linear = small(), torch.randn(40, 8), nn.Linear(16, 5)
    model.compile("adam", "mse")
    if was_used:
        model(x)
        for rows in (40, 1, 1):
            model.predict(x[:rows].numpy(), verbose=0)
    old = model.layers[1]
    if by_setattr:
        setattr(model, "1", linear)
    else:
        model._modules["1"] = linear
    expected = linear(model.layers[0](x))
    assert np.allclose(model.predict(x[:1].numpy(), verbose=0), expected[:1].detach().numpy(), atol=1e-6)
    assert torch.allclose(model(x), expected)
    assert model.layers[1] is linear
    assert model.output_shape == (None, 5)
    assert model.built
    assert old.inbound_nodes == []
    assert not linear.training
    losses = model.fit(x, x[:, :5], epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert not torch.allclose(model(x), expected)
    assert torch.allclose(copy.deepcopy(model)(x), model(x))


def test_every_child_wrapped_in_a_loop():
    model, x = small(), torch.randn(4, 8)
    first, second = model.layers
    for name, child in model.named_children():
        setattr(model, name, Twice(child))
    assert torch.allclose(model(x), 2 * second(2 * first(x)), atol=1e-6)
    assert model.output_shape == (None, 3)


def test_replacements_that_fit_only_together():
    model, x = small(), torch.randn(4, 8)
    model(x)
    model._modules["0"] = nn.Linear(8, 7)
    assert len(model.layers) == 2
    with pytest.raises(ValueError, match=r"last axis|last dimension|axis -1"):
        model(x)
    model._modules["1"] = nn.Linear(7, 2)
    assert model(x).shape == (4, 2)
    assert model.output_shape == (None, 2)


def test_children_removed_and_added():
    model, x = small(), torch.randn(4, 8)
    del model._modules["0"]
    model.add_module("5", Dense(2))
    model(torch.randn(4, 16))
    assert list(model.state_dict()) == ["0.kernel", "0.bias", "1.kernel", "1.bias"]
    model = small()
    model.more = nn.Linear(1, 1)
    before = model.output
    model(x)
    assert model.output is before
    model.add(Dense(2))
    assert model(x).shape == (4, 2)
    model._modules["0"] = None
    with pytest.raises(TypeError, match=r"expected a layer or a torch\.nn\.Module, found None"):
        model(x)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.Sequential])
def test_a_model_within_a_model(wrap):
    inner, x = small(), torch.randn(9, 8)
    model = Sequential([wrap(inner), Dense(2)])
    for rows in (9, 1, 1):
        model.predict(x[:rows].numpy(), verbose=0)
    linear = inner._modules["1"] = nn.Linear(16, 3)
    expected = model.layers[1](linear(inner.layers[0](x))).detach()
    for rows in (1, 9):
        assert np.allclose(model.predict(x[:rows].numpy(), verbose=0), expected[:rows].numpy(), atol=1e-6)
    assert torch.allclose(model(x), expected)


@pytest.mark.filterwarnings("ignore:.*deprecated")  # torch.ao.quantization and its tensors
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantize_dynamic():
    model, x = Sequential([Input((8,)), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)]), torch.randn(20, 8)
    expected = model(x)
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert "quantized" in type(quantized.layers[0]).__module__
    found = quantized(x)
    assert not torch.equal(found, expected)
    assert torch.allclose(found, expected, atol=0.1)
    assert np.allclose(quantized.predict(x.numpy(), verbose=0), expected.detach().numpy(), atol=0.1)


def test_a_graph_keeps_its_layers_and_says_so():
    inputs, x = Input((8,)), torch.randn(4, 8)
    model = Model(inputs, Dense(3, name="last")(Dense(16)(inputs)))
    model.compile("sgd", "mse")
    model(x)
    model.more = nn.Linear(1, 1)
    assert model(x).shape == (4, 3)
    other = nn.Linear(16, 3)
    model._modules["1"] = other
    asked = [
        lambda: model(x),
        lambda: model.predict(x.numpy(), verbose=0),
        lambda: model.fit(x, x[:, :3], verbose=0),
        lambda: model.get_config(),
    ]
    for ask in asked:
        with pytest.raises(RuntimeError, match=r"'1' is of class Linear, but its graph calls layer 'last'.*clone_"):
            ask()
    twin = clone_model(model, clone_function=lambda layer: TorchModule(other) if layer.name == "last" else layer)
    assert torch.allclose(twin(x), other(model.layers[1](x)))
