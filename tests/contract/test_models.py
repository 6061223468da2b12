"""Sequential models and the layers inside them: losses, updates, weights and nesting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fanin
from fanin import Sequential, regularizers
from fanin.layers import Dense, Input, Layer


def test_losses_of_a_model_are_those_of_its_layers():
    model = Sequential(
        [Input((4,)), Dense(3, kernel_regularizer="l2", activity_regularizer="l1"), Dense(2, bias_regularizer="l1")]
    )
    assert len(model.losses) == 3
    model(torch.ones(2, 4))
    model(torch.ones(2, 4))
    assert len(model.losses) == 3
    assert len(model.get_losses_for(None)) == 2
    assert len(model.get_losses_for(model.input)) == 1


def test_losses_of_a_model_leave_out_other_calls_of_a_shared_layer():
    shared = Dense(3, activity_regularizer="l2", kernel_regularizer="l2")
    elsewhere = Input((4,))
    shared(elsewhere)
    model = Sequential([Input((4,)), shared])
    shared(Input((4,)))
    assert len(shared.losses) == 4
    assert len(model.losses) == 2
    assert model.get_losses_for(elsewhere) == []


class Tally(Layer):
    def build(self, input_shape):
        self.seen = self.add_weight("seen", (), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.add_update((self.seen, self.seen + inputs.shape[0]), inputs=inputs)
        return inputs


def test_updates_of_a_model():
    model = Sequential([Input((4,)), Tally(), Dense(2)])
    assert len(model.updates) == 1
    assert len(model.get_updates_for(model.input)) == 1
    assert model.get_updates_for(None) == []
    model.layers[0].trainable = False
    assert model.updates == model.get_updates_for(model.input) == []
    model(torch.ones(5, 4))
    assert model.updates == []
    model.layers[0].trainable = True
    model.layers[1].trainable = False
    model(torch.ones(5, 4))
    assert len(model.updates) == 1
    model.trainable = False
    assert model.updates == []


def test_a_frozen_layer_is_not_updated_by_fit():
    model = Sequential([Input((4,)), Tally(), Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((6, 4)), np.ones((6, 1))
    model.layers[0].trainable = False
    model.fit(x, y, batch_size=3, verbose=0)
    assert model.layers[0].seen.item() == 0
    model.layers[0].trainable = True
    model.fit(x, y, batch_size=3, verbose=0)
    assert model.layers[0].seen.item() == 6


def test_updates_run_in_a_plain_loop():
    model = Sequential([Tally(), Dense(2)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fanin.attach(optimizer, model)
    for rows in (5, 7):
        optimizer.zero_grad()
        model(torch.ones(rows, 4)).sum().backward()
        optimizer.step()
    assert model.layers[0].seen.item() == 12


def test_a_nested_model_evaluates_to_the_closed_form():
    inner = Sequential(
        [
            Input((4,)),
            Dense(3, use_bias=False, kernel_initializer="ones", kernel_regularizer=lambda w: w.sum(),
                  activity_regularizer=lambda y: y.sum()),
        ]
    )  # fmt: skip
    model = Sequential([Input((4,)), inner, Dense(1, use_bias=False, kernel_initializer="ones")])
    assert len(model.losses) == 2
    model.compile("sgd", "mse")
    x, y = np.ones((6, 4)), np.zeros((6, 1))
    # outputs: 3 units of 4 each sum to 12; the squared error is 144; penalties 12 and 6 * 12 / 6.
    assert model.evaluate(x, y, batch_size=6, verbose=0) == pytest.approx(144 + 12 + 12)
    model(torch.ones(2, 4))
    assert sum(loss.item() for loss in model.losses) == pytest.approx(24)


def test_a_model_can_be_called_on_a_symbol_again():
    model = Sequential([Input((4,)), Dense(3, activity_regularizer="l2")])
    x = Input((4,))
    y = model(x)
    assert y.shape == (None, 3)
    assert y._keras_history == (model, 0, 0)
    assert len(model.losses) == 2
    assert len(model.get_losses_for(x)) == 1
    assert len(model.layers[0].inbound_nodes) == 1


def test_a_layer_shared_by_two_models_has_two_calls():
    shared = Dense(4)
    one, two = Sequential([Input((4,)), shared]), Sequential([Input((4,)), shared, Dense(2)])
    assert len(shared.inbound_nodes) == 2
    assert one.output is not two.layers[0].get_output_at(1)
    x = torch.randn(3, 4)
    assert torch.equal(two(x), two.layers[1](one(x)))


def test_trainability_toggles_as_a_whole_and_in_part():
    inner = Sequential([Input((4,)), Dense(3), Dense(3)])
    model = Sequential([Input((4,)), inner, Dense(2)])
    assert len(model.trainable_weights) == 6
    inner.layers[0].trainable = False
    assert len(model.trainable_weights) == 4
    inner.trainable = False
    assert len(model.trainable_weights) == 2
    assert not inner.layers[1].trainable
    model.trainable = False
    assert model.trainable_weights == []
    assert len(model.non_trainable_weights) == 6
    model.trainable = True
    assert len(model.trainable_weights) == 6
    assert inner.layers[0].trainable


def test_a_frozen_model_freezes_what_is_added_later():
    model = Sequential([Input((4,))], trainable=False)
    model.add(Dense(3))
    assert model.trainable_weights == []
    assert model.trainable is False


def test_state_dict_keys_are_positions():
    model = Sequential([Input((4,)), Dense(3, name="whatever"), torch.nn.ReLU(), Sequential([Dense(2)])])
    assert list(model.state_dict()) == ["0.kernel", "0.bias", "2.0.kernel", "2.0.bias"]


def test_config_of_a_nested_model_comes_back_with_names_and_order():
    model = Sequential(
        [Input((4,), name="in"), Dense(3, name="b"), Sequential([Dense(5, name="x")], name="m"), Dense(2, name="a")],
        name="outer",
    )
    twin = Sequential.from_config(model.get_config())
    assert twin.name == "outer"
    assert [layer.name for layer in twin.layers] == ["b", "m", "a"]
    assert [layer.name for layer in twin.layers[1].layers] == ["x"]
    assert twin.input_shape == (None, 4)
    twin.set_weights(model.get_weights())
    x = torch.randn(3, 4)
    assert torch.equal(model(x), twin(x))
    assert twin.get_config() == model.get_config()


def test_a_models_penalties_train_its_weights():
    model = Sequential([Input((2,)), Dense(2, use_bias=False, kernel_regularizer=regularizers.L2(0.5))])
    model.compile(fanin.optimizers.SGD(0.1), loss=lambda y, p: 0.0 * p.sum(dim=-1))
    before = model.get_weights()[0]
    model.fit(np.ones((4, 2)), np.ones((4, 2)), batch_size=4, verbose=0)
    # One step on 0.5 w^2: w - 0.1 w.
    assert np.allclose(model.get_weights()[0], 0.9 * before, rtol=1e-6)
