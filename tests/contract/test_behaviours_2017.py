"""Behaviours that the engine of 2017 was tested for, written anew.

More of them are in tests/models/test_functional.py: ends that make no graph, a(b(a(b(x)))) and sharing across ranks
through config and weights, `training=True` at a call, dicts in and out, trainability of functional models.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import fanin
from fanin import Model, Sequential
from fanin.layers import BatchNormalization, Dense, Input, InputLayer, Layer
from fanin.registry import serialize


class TwoLosses(Layer):
    """A loss in `build`, and one conditional on the inputs in `call`."""

    def build(self, input_shape):
        self.a = self.add_weight("a", (), initializer="ones")
        self.add_loss(lambda: self.a * 3)

    def call(self, inputs):
        self.add_loss(inputs.sum(), inputs=inputs)
        return inputs + 1


def test_a_loss_in_build_and_one_in_call():
    layer = TwoLosses()
    one, two = Input((4,)), Input((4,))
    out_one, out_two = layer(one), layer(two)
    assert len(layer.losses) == 3
    assert len(layer.get_losses_for(one)) == len(layer.get_losses_for(two)) == 1
    assert len(layer.get_losses_for(None)) == 1
    assert layer.get_losses_for(out_one) == layer.get_losses_for(out_two) == []
    model = Sequential([Input((4,)), layer])
    assert len(layer.losses) == 4
    assert len(model.losses) == 2
    layer(Input((4,)))
    assert len(model.losses) == 2
    model(Input((4,)))
    assert len(model.losses) == 3


class TwoUpdates(Layer):
    def build(self, input_shape):
        self.a = self.add_weight("a", (), initializer="zeros", trainable=False)
        self.b = self.add_weight("b", (), initializer="zeros", trainable=False)
        self.add_update((self.a, 1.0))

    def call(self, inputs):
        self.add_update((self.b, inputs.sum()), inputs=inputs)
        return inputs + 1


def test_an_update_in_build_and_one_in_call():
    layer = TwoUpdates()
    one, two = Input((4,)), Input((4,))
    layer(one)
    out_two = layer(two)
    assert len(layer.updates) == 3
    assert len(layer.get_updates_for(one)) == len(layer.get_updates_for(two)) == 1
    assert len(layer.get_updates_for(None)) == 1
    assert layer.get_updates_for(out_two) == []


def test_updates_run_in_training():
    layer = TwoUpdates()
    model = Sequential([Input((4,)), layer, Dense(1)])
    model.compile("sgd", "mse")
    model.fit(2 * np.ones((6, 4)), np.ones((6, 1)), batch_size=6, verbose=0)
    assert layer.a.item() == 1.0
    assert layer.b.item() == 48.0


def test_three_regularizers_on_one_dense_are_three_losses():
    layer = Dense(3, kernel_regularizer="l1", bias_regularizer="l1", activity_regularizer="l1")
    model = Sequential([Input((2,)), layer])
    assert len(layer.losses) == len(model.losses) == 3
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((4, 2)), np.ones((4, 3)))
    assert len(model.losses) == 3


def test_an_input_has_a_history_and_a_node_without_inbound_layers():
    x = Input((4,), name="x")
    assert x._keras_history == (x.layer, 0, 0)
    assert isinstance(x.layer, InputLayer)
    (node,) = x.layer.inbound_nodes
    assert node.inbound_layers == []
    assert node.input_tensors == []
    assert node.output_tensors == [x]
    assert x.layer.input is x.layer.output is x
    assert x.layer.input_shape == (None, 4)
    assert x.layer.weights == []


def test_two_inputs_or_outputs_give_lists():
    class Swap(Layer):
        def call(self, inputs):
            a, b = inputs
            return [b, a]

    a, b = Input((4,)), Input((2,))
    layer = Swap()
    c, d = layer([a, b])
    (node,) = layer.inbound_nodes
    assert layer.input == node.input_tensors == [a, b]
    assert layer.output == node.output_tensors == [c, d]
    assert layer.output_shape == [(None, 2), (None, 4)]
    assert layer.output_mask == [None, None]
    assert [t._keras_history for t in (c, d)] == [(layer, 0, 0), (layer, 0, 1)]


def test_input_refuses_contradictions():
    with pytest.raises(ValueError, match="not both"):
        Input(shape=(4,), batch_shape=(None, 4))
    with pytest.raises(ValueError, match="give a shape"):
        Input()
    with pytest.raises(ValueError, match="colour"):
        Input((4,), colour="red")
    with pytest.raises(ValueError, match="expected a tuple of sizes"):
        Input(4)
    with pytest.raises(ValueError, match="Unknown dtype"):
        Input((4,), dtype="float3")


def test_layer_order_and_names_survive_json():
    names = ["z", "a", "m", "b"]
    model = Sequential([Input((4,), name="first"), *(Dense(4, name=name) for name in names)], name="model")
    described = json.loads(model.to_json())
    assert described == json.loads(json.dumps(serialize(model)))
    twin = Sequential.from_config(described["config"])
    assert [layer.name for layer in twin.layers] == names
    assert twin.name == "model"
    assert twin.input.name == "first"


def test_a_mask_reaches_call_and_a_custom_compute_mask_sets_it():
    seen = []

    class Masks(Layer):
        def call(self, inputs):
            return inputs

        def compute_mask(self, inputs, mask=None):
            return inputs.sum(-1) > 0

    class Takes(Layer):
        supports_masking = True

        def call(self, inputs, mask=None):
            seen.append(mask)
            return inputs if mask is None else inputs * mask[..., None]

    x = Input((3, 4))
    masked = Masks()(x)
    assert masked.mask.shape == (None, 3)
    assert Takes()(Dense(2)(masked)).mask is masked.mask
    assert seen[-1].dtype == torch.bool

    model = Sequential([Masks(), Dense(2, bias_initializer="ones"), Takes()])
    data = torch.ones(2, 3, 4)
    data[:, 1] = -1
    y = model(data)
    assert torch.equal(seen[-1], torch.tensor([[True, False, True]] * 2))
    assert torch.equal((y != 0).any(-1), seen[-1])
    explicit = Sequential([Dense(2), Takes()])
    mask = torch.tensor([[True, False, False]] * 2)
    explicit(data, mask=mask)
    assert torch.equal(seen[-1], mask)


def test_a_mask_given_at_a_symbolic_call_reaches_it():
    class Takes(Layer):
        def call(self, inputs, mask=None):
            return inputs if mask is None else torch.cat([inputs, mask[..., None]], -1)

    layer = Takes()
    y = layer(Input((3, 4)), mask=Input((3,)))
    assert y.shape == (None, 3, 5)
    assert len(layer.inbound_nodes[0].input_tensors) == 2


def test_pop_updates_the_output_shape_and_training_goes_on():
    last = Dense(2)
    model = Sequential([Input((4,)), Dense(3), last])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    assert model.pop() is last
    assert last.inbound_nodes == []
    assert model.output_shape == (None, 3)
    assert len(model.weights) == 2
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)
    model.add(Dense(5))
    assert model.output_shape == (None, 5)
    model.pop(), model.pop()
    assert model.layers == []
    with pytest.raises(TypeError, match="no layer to pop"):
        model.pop()


def test_pop_on_an_empty_model_and_add_none():
    with pytest.raises(TypeError, match="no layer to pop"):
        Sequential().pop()
    for wrong in (None, "dense", 3, Dense):
        with pytest.raises(TypeError, match=r"expected a layer or a torch\.nn\.Module"):
            Sequential().add(wrong)


def test_training_given_at_a_call_reaches_the_layers_inside():
    seen = []

    class Notes(Layer):
        def call(self, inputs, training=None):
            seen.append(training)
            return inputs

    model = Sequential([Notes(), Sequential([Notes(name="inner")])])
    model(torch.ones(1, 4), training=True)
    model(torch.ones(1, 4), training=False)
    model(torch.ones(1, 4))
    model.train()
    model(torch.ones(1, 4))
    assert seen[-8:] == [True, True, False, False, False, False, True, True]


def test_a_model_is_deferred_until_it_knows_its_shape():
    model = Sequential([Dense(3), Dense(2)])
    assert not model.built
    assert model.weights == []
    with pytest.raises(ValueError, match="no weights to count"):
        model.count_params()
    with pytest.raises(AttributeError, match="does not know its input shape yet"):
        _ = model.output_shape
    model.build((None, 4))
    assert model.output_shape == (None, 2)
    assert model.count_params() == 15 + 8


def test_weights_are_set_and_read_in_the_order_of_the_layers():
    model = Sequential([Input((4,)), Dense(3), Dense(2)])
    values = [np.full(w.shape, i, dtype=np.float32) for i, w in enumerate(model.weights)]
    model.set_weights(values)
    for value, found in zip(values, model.get_weights(), strict=True):
        assert np.array_equal(value, found)
    with pytest.raises(ValueError, match="has 4 weights, found 3"):
        model.set_weights(values[:3])


def test_unknown_arguments_of_a_call_are_refused():
    with pytest.raises(TypeError, match="unknown"):
        Dense(3)(torch.ones(2, 4), unknown=1)


def test_fanin_names_are_the_contract():
    assert fanin.Input is Input
    assert fanin.layers.Dense is Dense


def test_a_loss_conditional_on_a_tensor_inside_the_call_depends_on_the_inputs():
    class Inside(Layer):
        def call(self, inputs):
            hidden = 2 * inputs
            self.add_loss(hidden.sum(), inputs=hidden)
            return hidden

    x = Input((4,))
    layer = Inside()
    layer(x)
    assert len(layer.get_losses_for(x)) == 1
    assert layer.get_losses_for(None) == []


# --- functional models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ["losses", "updates"])
def test_a_model_sees_its_own_calls_of_a_shared_layer(cls):
    layer = TwoLosses() if cls == "losses" else TwoUpdates()
    one, two = Input((4,)), Input((4,))
    out_one, out_two = layer(one), layer(two)
    both = Model([one, two], [out_one, out_two])
    second = Model(two, out_two)
    assert len(getattr(layer, cls)) == len(getattr(both, cls)) == 3
    assert len(getattr(second, cls)) == 2
    layer(Input((4,)))
    assert len(getattr(second, cls)) == 2
    anew = Input((4,))
    second(anew)
    assert len(getattr(second, cls)) == 3
    assert len(getattr(second, f"get_{cls}_for")(anew)) == 1
    assert len(getattr(second, f"get_{cls}_for")(two)) == 1
    assert len(getattr(second, f"get_{cls}_for")(None)) == 1
    assert getattr(second, f"get_{cls}_for")(one) == []


def test_conditional_losses_follow_dependency_through_a_model():
    x, y = Input((3,)), Input((3,))
    layer = Dense(2, activity_regularizer="l2", kernel_regularizer="l1")
    model = Model([x, y], [layer(x), Dense(2, activity_regularizer="l2")(y)])
    assert len(model.losses) == 3
    assert len(model.get_losses_for(x)) == len(model.get_losses_for(y)) == 1
    assert len(model.get_losses_for(None)) == 1
    assert model.get_losses_for([x, y]) == [*model.get_losses_for(x), *model.get_losses_for(y)]


def test_a_nested_model_with_a_regularizer_evaluates_to_the_closed_form():
    """Kernel of ones (4, 3) and the sum as penalty: 12; the inner layer's 3 x 2 ones: 6."""
    source = Input((3,))
    inner = Model(source, Dense(2, use_bias=False, kernel_initializer="ones", kernel_regularizer=torch.sum)(source))
    x = Input((4,))
    hidden = Dense(3, use_bias=False, kernel_initializer="ones", kernel_regularizer=torch.sum)(x)
    model = Model(x, inner(hidden))
    model.compile("sgd", "mse")
    data = np.ones((5, 4), "float32")
    assert len(model.losses) == 2
    assert model.evaluate(data, np.full((5, 2), 12.0, "float32"), verbose=0) == pytest.approx(18.0)


def test_a_model_of_two_inputs_and_outputs_takes_and_gives_lists():
    class Swap(Layer):
        def call(self, inputs):
            first, second = inputs
            return second, first

    layer, one, two = Swap(), Input((3,)), Input((5,))
    outputs = layer([one, two])
    assert layer.input == [one, two]
    assert layer.input_shape == [(None, 3), (None, 5)]
    assert layer.output_shape == [(None, 5), (None, 3)]
    assert list(layer.output) == list(outputs)
    model = Model([one, two], list(outputs))
    assert [tuple(out.shape) for out in model([torch.ones(2, 3), torch.ones(2, 5)])] == [(2, 5), (2, 3)]


@pytest.mark.filterwarnings("ignore:.* has no weights that train")
def test_a_frozen_batch_normalization_rests_and_wakes():
    x = Input((4,))
    layer = BatchNormalization()
    model = Model(x, layer(x))
    model.compile("sgd", "mse")
    data = np.random.default_rng(0).normal(5, 2, (64, 4)).astype("float32")
    zeros = np.zeros_like(data)
    assert len(layer.updates) == len(model.updates) == 2
    layer.trainable = False
    assert layer.updates == model.updates == []
    assert model.trainable_weights == []
    before = model.predict(data, verbose=0)
    model.fit(data, zeros, verbose=0)
    assert np.array_equal(model.predict(data, verbose=0), before)
    layer.trainable = True
    assert len(layer.updates) == len(model.updates) == 2
    model.fit(data, zeros, verbose=0)
    assert not np.array_equal(model.predict(data, verbose=0), before)


def test_updates_of_a_model_run_in_fit():
    layer = TwoUpdates()
    x = Input((4,))
    model = Model(x, Dense(1)(layer(x)))
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 4), "float32"), np.zeros((2, 1), "float32"), verbose=0)
    assert float(layer.a) == 1.0
    assert float(layer.b) == 8.0


def test_losses_and_updates_with_symbolic_values_run_with_the_model():
    """Closed form: the loss sum(h) of ones (2, 4) through a kernel of ones is 2 * 3 * 4; the update keeps mean(x)."""
    x = Input((4,))
    layer = Dense(3, use_bias=False, kernel_initializer="ones")
    h = layer(x)
    model = Model(x, h)
    seen = layer.add_weight("seen", (), initializer="zeros", trainable=False)
    model.add_loss(h.sum(), inputs=x)
    layer.add_update((seen, x.mean() * 2), inputs=x)
    assert len(model.losses) == len(model.updates) == 1
    data = torch.ones(2, 4)
    assert torch.equal(model(data), torch.full((2, 3), 4.0))
    assert [float(loss.detach()) for loss in model.losses] == [24.0]
    assert model.losses[0].requires_grad
    model.compile("sgd", None)
    assert model.evaluate(data, verbose=0) == 24.0
    model.fit(data, verbose=0)
    assert float(seen) == 2.0
    assert model.get_weights()[0] == pytest.approx(1 - 0.01 * 2)
    other = Input((4,))
    assert Model(other, layer(other)).losses == []
    inner = model(other)
    assert len(Model(other, inner).losses) == 1


def test_a_model_notices_what_is_added_after_its_first_calls():
    x = Input((4,))
    model = Model(x, Dense(3)(x))
    data = torch.ones(2, 4)
    for _ in range(3):
        model(data)
    assert model.losses == []
    model.add_loss(x.sum())
    assert torch.equal(model(data), model.layers[1](data))
    assert [float(loss) for loss in model.losses] == [8.0]
    chain = Sequential([Input((4,)), Dense(3)])
    chain(data)
    chain.add_loss(chain.input.sum())
    chain(data)
    assert [float(loss) for loss in chain.losses] == [8.0]
