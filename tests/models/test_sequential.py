"""Sequential: growing, shrinking, refusing, copying."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from torch import nn

import fanin
from fanin import Sequential
from fanin.layers import Add, Dense, Embedding, Input, InputLayer, Layer


def test_layers_modules_and_models_in_one_chain():
    model = Sequential([Input((4,)), Dense(8), nn.GELU(), nn.LayerNorm(8), Sequential([Dense(3)]), nn.Linear(3, 2)])
    x = torch.randn(5, 4)
    expected = x
    for layer in model.layers:
        expected = layer(expected)
    assert torch.equal(model(x), expected)
    assert [type(layer).__name__ for layer in model.layers] == ["Dense", "GELU", "LayerNorm", "Sequential", "Linear"]
    assert model.output_shape == (None, 2)


def test_one_layer_alone():
    assert Sequential(Dense(3))(torch.ones(2, 4)).shape == (2, 3)
    assert Sequential()(torch.ones(2, 4)).tolist() == [[1.0] * 4] * 2


def test_symbols_of_the_model():
    model = Sequential([Input((4,), name="x"), Dense(3), Dense(2)])
    assert model.inputs == [model.input]
    assert model.outputs == [model.output]
    assert model.input.name == "x"
    assert model.output is model.layers[1].output
    assert model.layers[0].output is model.layers[1].input
    assert model.inbound_nodes == []


@pytest.mark.parametrize("wrong", [None, 3, "dense", Dense, [Dense(3)]])
def test_add_refuses_what_is_no_layer(wrong):
    with pytest.raises(TypeError, match=r"expected a layer or a torch\.nn\.Module"):
        Sequential().add(wrong)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("relu", r"'relu'\. An activation is a layer as fanin\.layers\.Activation\('relu'\)\."),
     (torch.relu, r"fanin\.layers\.Activation\(relu\)\."), (Dense, r"A layer is an instance: Dense\(\.\.\.\)\."),
     ("dense", r"'dense'\.$"), (3, r"3\.$")],
)  # fmt: skip
def test_the_message_says_how_it_becomes_a_layer(wrong, hint):
    with pytest.raises(TypeError, match=hint):
        Sequential([wrong])


def test_names_must_differ():
    model = Sequential([Dense(3, name="a")])
    with pytest.raises(ValueError, match="already has a layer named 'a'"):
        model.add(Dense(3, name="a"))
    with pytest.raises(ValueError, match="already has a layer named 'a'"):
        model.add(model.layers[0])
    assert len(model.layers) == 1


def test_an_input_comes_first_and_once():
    with pytest.raises(ValueError, match="can only come first, and once"):
        Sequential([Dense(3), Input((4,))])
    with pytest.raises(ValueError, match="can only come first, and once"):
        Sequential([Input((4,)), InputLayer((4,))])
    with pytest.raises(TypeError):
        Sequential([Dense(3)(Input((4,)))])


def test_a_layer_that_does_not_fit_leaves_the_model_as_it_was():
    model = Sequential([Input((4,)), Dense(3)])
    with pytest.raises(ValueError, match="last dimension of 5"):
        model.add(nn.Linear(5, 2))
    assert len(model.layers) == 1
    assert model.output_shape == (None, 3)
    assert list(model.state_dict()) == ["0.kernel", "0.bias"]
    model.add(nn.Linear(3, 2))
    assert model.output_shape == (None, 2)

    empty = Sequential()
    with pytest.raises(ValueError, match="last dimension"):
        empty.add(Dense(3, input_shape=(None,)))
    assert empty.layers == []
    empty.add(Dense(3, input_shape=(4,)))
    assert empty.input_shape == (None, 4)


def test_a_failing_build_leaves_no_calls():
    first = Dense(3)
    model = Sequential([first, nn.Linear(5, 2)])
    with pytest.raises(ValueError, match="last dimension of 5"):
        model.build((None, 4))
    assert first.inbound_nodes == []
    assert not model.built
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        model(torch.ones(2, 4))


def test_an_input_that_does_not_fit_is_refused():
    model = Sequential([Input((4,)), Dense(3)])
    with pytest.raises(ValueError, match="takes shape \\(None, 4\\), found \\(2, 5\\)"):
        model(torch.ones(2, 5))


def test_add_and_pop_after_a_call():
    model = Sequential([Dense(3)])
    x = torch.ones(2, 4)
    model(x)
    model.add(nn.ReLU())
    model.add(Dense(5))
    assert model.output_shape == (None, 5)
    assert model(x).shape == (2, 5)
    assert type(model.pop()) is Dense
    assert type(model.pop()) is nn.ReLU
    assert model.output_shape == (None, 3)
    assert model.layers[0].output is model.output
    assert list(model.state_dict()) == ["0.kernel", "0.bias"]


def test_models_are_in_eval_mode_until_they_train():
    model = Sequential([Dense(3), nn.Dropout()])
    assert not model.training
    assert not any(module.training for module in model.modules())
    model.add(nn.Dropout())
    assert not model.layers[-1].training
    model.train()
    assert model.layers[-1].training


def test_copies():
    model = Sequential([Input((4,), name="x"), Dense(3, activity_regularizer="l2"), nn.Linear(3, 2)], name="m")
    model(torch.ones(2, 4))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        x = torch.randn(2, 4)
        assert torch.equal(model(x), twin(x))
        assert twin.name == "m"
        assert twin.input.name == "x"
        assert twin.input is not model.input
        assert twin.output_shape == (None, 2)
        assert len(twin.layers[0].inbound_nodes) == 1
        assert len(twin.losses) == 1
        twin.add(Dense(1))
        assert twin.output_shape == (None, 1)
        assert model.output_shape == (None, 2)
    unbuilt = copy.deepcopy(Sequential([Dense(3)]))
    assert unbuilt(torch.ones(2, 4)).shape == (2, 3)


def test_config_round_trip():
    model = Sequential([Input((4,), dtype="float64"), Dense(3, "relu"), Dense(2)], name="m", trainable=False)
    config = json.loads(json.dumps(model.get_config()))
    assert [layer["class_name"] for layer in config["layers"]] == ["InputLayer", "Dense", "Dense"]
    assert config["build_input_shape"] == [None, 4]
    twin = Sequential.from_config(config)
    assert twin.built
    assert twin.trainable is False
    assert twin.input.dtype == torch.float64
    assert twin.get_config() == config
    deferred = Sequential.from_config(Sequential([Dense(3)]).get_config())
    assert not deferred.built


def test_configs_of_keras_2_and_1():
    layer = {"class_name": "Dense", "config": {"name": "d", "units": 3, "batch_input_shape": [None, 4]}}
    for config in ([layer], {"name": "old", "layers": [layer]}):
        model = Sequential.from_config(config)
        assert model.output_shape == (None, 3)
        assert model.layers[0].name == "d"


def test_custom_objects():
    class Mine(Layer):
        def call(self, inputs):
            return 3 * inputs

    described = {"class_name": "Mine", "module": None, "config": {"name": "mine"}, "registered_name": "Mine"}
    config = {"name": "m", "layers": [described]}
    with pytest.raises(fanin.errors.MismatchError, match="Unknown class 'Mine'"):
        Sequential.from_config(config)
    model = Sequential.from_config(config, custom_objects={"Mine": Mine})
    assert model(torch.ones(1)).tolist() == [3.0]


def test_a_torch_module_has_no_config():
    with pytest.raises(ValueError, match=r"torch module Linear.*has no config"):
        Sequential([nn.Linear(4, 3)]).get_config()


def test_several_inputs_reach_the_first_layer():
    class Sum(Layer):
        def call(self, inputs):
            return sum(inputs.values()) if isinstance(inputs, dict) else sum(inputs)

    for data in ([torch.ones(2, 4), torch.ones(2, 4)], {"a": torch.ones(2, 4), "b": torch.ones(2, 4)}):
        model = Sequential([Sum(), Dense(3, use_bias=False, kernel_initializer="ones")])
        assert model(data).tolist() == [[8.0] * 3] * 2
        assert model.built


def test_masks_of_several_inputs_reach_the_first_layer():
    ids = torch.tensor([[3, 1, 0], [2, 0, 0]])
    h = Embedding(5, 4, mask_zero=True)(ids)
    assert torch.equal(Sequential([Add(), Dense(3)])([h, h])._keras_mask, ids != 0)


def test_a_mask_goes_along_the_chain():
    class Mean(Layer):
        def call(self, inputs, mask=None):
            if mask is None:
                return inputs.mean(1)
            return (inputs * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    model = Sequential([Dense(3), Dense(3), Mean(), Dense(1)])
    x = torch.randn(2, 5, 4)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
    found = model(x, mask=mask)
    hidden = model.layers[1](model.layers[0](x))
    expected = torch.stack([hidden[0, :2].mean(0), hidden[1, :4].mean(0)])
    assert torch.allclose(found, model.layers[3](expected), atol=1e-6)
    assert not torch.allclose(found, model(x))

    class Plain(Layer):
        def call(self, inputs):
            return inputs

    with pytest.warns(UserWarning, match="'plain' does not support masking"):
        Sequential([Dense(3), Plain(), Mean()])(x, mask=mask)


def test_a_sequential_in_torch_sequential():
    model = nn.Sequential(Sequential([Dense(3)]), nn.ReLU())
    assert model(torch.ones(2, 4)).shape == (2, 3)
    assert list(model.state_dict()) == ["0.0.kernel", "0.0.bias"]
    model.train()
    assert model[0].training


def test_parameters_can_be_optimized_before_the_first_call():
    model = Sequential([Dense(3), Dense(1)])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x = torch.randn(8, 4)
    model(x)
    before = model.get_weights()
    model(x).square().mean().backward()
    optimizer.step()
    assert all((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def test_layers_are_given_in_a_list():
    with pytest.raises(TypeError, match=r"takes its layers in a list.*found Dense 'b' as the second argument"):
        Sequential(Dense(4), Dense(3, name="b"))
    with pytest.raises(TypeError, match="trainable is True or False, found 'yes'"):
        Sequential([Dense(4)], "yes")
    with pytest.raises(ValueError, match="name is a printable string"):
        Sequential([Dense(4)], True, Dense(3))
    with pytest.raises(TypeError, match="Model: trainable is True or False, found 1"):
        fanin.Model(trainable=1)


def test_a_first_layer_that_is_a_model_with_a_graph_gives_the_input_shape():
    generator = Sequential([Input((4,)), Dense(8), Dense(6)])
    x = Input((6,))
    discriminator = fanin.Model(x, Dense(1, activation="sigmoid")(x))
    both = Sequential([generator, discriminator])
    assert both.built
    assert both.input_shape == (None, 4)
    assert both.output_shape == (None, 1)
    assert both.count_params() == 4 * 8 + 8 + 8 * 6 + 6 + 6 + 1
    assert generator.input_shape == (None, 4)  # the model's own graph is as it was
    assert [len(layer.inbound_nodes) for layer in generator.layers] == [1, 1]
    discriminator.trainable = False
    both.compile("adam", "binary_crossentropy")
    before = generator.get_weights(), discriminator.get_weights()
    both.fit(torch.randn(8, 4), torch.ones(8, 1), verbose=0)
    assert (generator.get_weights()[0] != before[0][0]).any()
    assert (discriminator.get_weights()[0] == before[1][0]).all()


def test_a_frozen_base_with_a_new_end():
    x = Input((), dtype="int64")
    base = fanin.Model(x, fanin.layers.Embedding(5, 7)(x))
    base.trainable = False
    model = Sequential([base, Dense(3)])
    assert len(list(model.parameters())) == 3
    assert len(model.trainable_weights) == 2
    assert model.inputs[0].dtype == torch.int64
    assert model(torch.tensor([0, 4])).shape == (2, 3)


def test_a_first_layer_whose_inputs_are_several_or_unknown_waits():
    one, two = Input((4,)), Input((4,))
    assert not Sequential([fanin.Model([one, two], Dense(2)(one + two)), Dense(3)]).built
    assert not Sequential([Sequential([Dense(2)]), Dense(3)]).built
    dense = Dense(2)
    dense(Input((4,)))
    assert not Sequential([dense, Dense(3)]).built  # as in Keras


def test_it_can_be_indexed_as_in_torch():
    model = Sequential([Input((4,)), Dense(8), nn.ReLU()])
    model.append(Dense(2))
    assert len(model) == 3
    assert model[0] is model.layers[0]
    assert model[-1] is model.layers[2]
    assert [*model] == model.layers
    x = torch.randn(5, 4)
    assert torch.equal(model[1:](model[0](x)), model(x))
    assert bool(Sequential())
