"""Names that the library's classes have: a module of that name could not be read back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fanin import Model, Sequential
from fanin.layers import Dense, Layer

OF_MODELS = [
    *("layers", "metrics", "optimizer", "stop_training", "run_eagerly", "compiled", "jit_compile", "loss"),
    *("metrics_names", "summary", "train_step", "get_layer", "count_params", "call"),
]


@pytest.mark.parametrize("name", OF_MODELS)
def test_a_module_of_that_name_is_refused(name):
    for model in (Model(), Sequential()):
        with pytest.raises(AttributeError, match=f"'{name}' is a part of the layer contract.*'{name}_layer'"):
            setattr(model, name, nn.ModuleList([Dense(2)]))
        assert list(model.children()) == []


@pytest.mark.parametrize("name", ["layers", "metrics", "loss", "metrics_names"])
def test_a_list_in_the_place_of_a_property_too(name):
    with pytest.raises(AttributeError, match=f"'{name}' is a part of the layer contract"):
        setattr(Model(), name, [Dense(2)])


@pytest.mark.parametrize("name", ["name", "built", "training", "input_spec", "inbound_nodes"])
def test_a_module_in_the_place_of_a_value_too(name):
    layer = Layer(name="own")
    with pytest.raises(AttributeError, match=f"'{name}' is a part of the layer contract.*layer 'own'.*'{name}_layer'"):
        setattr(layer, name, Dense(2))
    assert layer.name == "own"
    assert not layer.built
    assert list(layer.children()) == []


def test_methods_of_modules():
    with pytest.raises(AttributeError, match="'half' is a part of the layer contract"):
        Layer().half = Dense(2)


def test_values_and_functions_go_where_they_went():
    model = Model()
    model.stop_training = True
    model.train_step = lambda data: {}
    model.note = nn.Linear(2, 2)
    assert model.train_step(None) == {}


def test_names_that_a_class_of_ones_own_defines():
    class Own(Model):
        encoder = None

        def __init__(self):
            super().__init__()
            self.layers = [Dense(2)]

        @property
        def layers(self):
            return self.parts

        @layers.setter
        def layers(self, parts):
            self.parts = nn.ModuleList(parts)

        def call(self, inputs):
            return self.layers[0](inputs)

    assert Own()(torch.ones(2, 3)).shape == (2, 2)
