"""Rows 15 to 33: what a layer's properties answer."""

from __future__ import annotations

import pytest
import torch

import fanin
from fanin import regularizers
from fanin.layers import Dense, Input, Layer


def test_activity_regularizer():
    assert Dense(3).activity_regularizer is None
    assert isinstance(Dense(3, activity_regularizer="l1").activity_regularizer, regularizers.L1)
    rule = regularizers.L2(0.5)
    assert Dense(3, activity_regularizer=rule).activity_regularizer is rule


def test_dtype_is_that_of_the_weights_as_a_name():
    assert Dense(3).dtype == "float32"
    assert Dense(3, dtype="mixed_bfloat16").dtype == "float32"
    assert Dense(3, dtype="mixed_bfloat16").compute_dtype == "bfloat16"
    assert Dense(3, dtype="bfloat16").dtype == "bfloat16"
    layer = Dense(3, input_shape=(4,)).double()
    assert layer.dtype == "float64"
    fanin.config.set_floatx("float64")
    assert Dense(3).dtype == "float64"
    with pytest.raises(AttributeError, match="'dtype' is a part of the layer contract"):
        layer.dtype = "float32"


def test_name_is_unique_unless_given():
    assert [Dense(3).name for _ in range(3)] == ["dense", "dense_1", "dense_2"]

    class LeakyThing(Layer):
        pass

    assert LeakyThing().name == "leaky_thing"
    assert Dense(3, name="mine").name == Dense(3, name="mine").name == "mine"
    for wrong in ("a/b", "", 3, "a\n"):
        with pytest.raises(ValueError, match="layer's name"):
            Dense(3, name=wrong)


def test_graph_is_an_fx_graph_of_the_calls_that_reach_the_layer():
    x = Input((4,), name="x")
    first, second, other = Dense(3, name="first"), Dense(2, name="second"), Dense(2, name="other")
    y = second(torch.relu(first(x)) * 2)
    other(x)
    graph = second.graph
    assert isinstance(graph, torch.fx.Graph)
    graph.lint()
    calls = [(node.op, node.target) for node in graph.nodes]
    assert calls == [
        ("placeholder", "x"),
        ("call_module", "first"),
        ("call_function", torch.relu),
        ("call_function", torch.mul),
        ("call_module", "second"),
        ("output", "output"),
    ]
    shown = {node.name: node.meta.get("shape") for node in graph.nodes}
    assert shown["first"] == (None, 3)
    assert shown["second"] == y.shape == (None, 2)


def test_graph_computes_what_the_layers_compute():
    x = Input((4,), name="x")
    shared, last = Dense(4, name="shared"), Dense(2, name="last")
    last(shared(shared(x)) + x)
    root = torch.nn.ModuleDict({"shared": shared, "last": last})
    data = torch.randn(5, 4)
    traced = torch.fx.GraphModule(root, last.graph)
    assert torch.equal(traced(data), last(shared(shared(data)) + data))
    assert sum(node.target == "shared" for node in last.graph.nodes) == 2


def test_graph_of_two_calls_holds_both():
    a, b = Input((4,), name="a"), Input((4,), name="b")
    layer = Dense(3, name="layer")
    layer(a), layer(b)
    assert [node.op for node in layer.graph.nodes].count("call_module") == 2
    assert len(list(layer.graph.nodes)[-1].args[0]) == 2


def test_scope_name_is_distinct_for_layers_named_alike():
    a, b, c = Dense(3, name="same"), Dense(3, name="same"), Dense(3, name="same_1")
    for layer in (a, b, c):
        with pytest.raises(ValueError, match="no scope name yet"):
            _ = layer.scope_name
    a(torch.ones(1, 2))
    b(Input((2,)))
    c.build((None, 2))
    assert len({a.scope_name, b.scope_name, c.scope_name}) == 3
    assert a.scope_name == "same"
    before = a.scope_name
    a(torch.ones(1, 2))
    assert a.scope_name == before


# --- the single call --------------------------------------------------------------------------------------


def test_input_and_output_of_one_call():
    x = Input((4,))
    layer = Dense(3)
    y = layer(x)
    assert layer.input is x
    assert layer.output is y
    assert layer.input_shape == (None, 4)
    assert layer.output_shape == (None, 3)
    assert layer.input_mask is None
    assert layer.output_mask is None


@pytest.mark.parametrize("asked", ["input", "output", "input_mask", "output_mask"])
def test_several_calls_are_ambiguous_and_the_message_says_where_to_ask(asked):
    layer = Dense(3)
    layer(Input((4,))), layer(Input((4,)))
    with pytest.raises(AttributeError, match=rf"2 symbolic calls.*get_{asked}_at\(index\)"):
        getattr(layer, asked)
    assert not hasattr(layer, asked)


class Join(Layer):
    supports_masking = True

    def call(self, inputs):
        return torch.cat(inputs, -1)

    def compute_mask(self, inputs, mask=None):
        return None if mask is None else mask[0]


class Split(Layer):
    def call(self, inputs):
        return inputs[..., :1], inputs[..., 1:]

    def compute_mask(self, inputs, mask=None):
        return [inputs[..., 0] > 0, None]


def test_lists_for_several_inputs_and_outputs():
    a, b = Input((4,)), Input((2,))
    join, split = Join(), Split()
    c = join([a, b])
    one, two = split(c)
    assert join.input == [a, b]
    assert join.input_shape == [(None, 4), (None, 2)]
    assert join.input_mask == [None, None]
    assert join.output is c
    assert split.input is c
    assert split.output == [one, two]
    assert split.output_shape == [(None, 1), (None, 5)]
    first, second = split.output_mask
    assert first.shape == (None,)
    assert first.dtype == torch.bool
    assert first is one.mask
    assert second is None


def test_shapes_answer_for_several_calls_that_agree():
    layer = Dense(3)
    layer(Input((4,))), layer(Input((4,)))
    assert layer.input_shape == (None, 4)
    assert layer.output_shape == (None, 3)
    layer(Input((7, 4)))
    for asked in ("input_shape", "output_shape"):
        with pytest.raises(AttributeError, match=rf"different shapes.*get_{asked}_at\(index\)"):
            getattr(layer, asked)


def test_masks_travel_with_the_symbols():
    split, dense = Split(), Dense(3)
    one, _ = split(Input((4,)))
    dense(one)
    assert dense.input_mask is one.mask
    assert dense.output_mask is one.mask


# --- 26 losses --------------------------------------------------------------------------------------------


def test_losses_hold_each_weight_once_and_each_symbolic_call():
    layer = Dense(3, kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer="l1")
    a, b = Input((4,)), Input((4,))
    layer(a), layer(b)
    assert len(layer.losses) == 4
    layer(torch.ones(2, 4))
    layer(torch.ones(2, 4))
    assert len(layer.losses) == 3
    assert all(isinstance(loss, torch.Tensor) and loss.dim() == 0 for loss in layer.losses)


def test_losses_are_those_of_the_last_outermost_call():
    inner = Dense(3, activity_regularizer=regularizers.L1(1.0), kernel_initializer="ones")

    class Twice(Layer):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def call(self, inputs):
            return self.inner(inputs) + self.inner(2 * inputs)

    outer = Twice()
    outer(torch.ones(1, 4))
    assert sorted(loss.item() for loss in outer.losses) == [12.0, 24.0]
    assert len(inner.losses) == 2
    inner(3 * torch.ones(1, 4))
    assert [loss.item() for loss in inner.losses] == [36.0]


def test_collect_losses_keeps_those_of_all_calls():
    layer = Dense(3, activity_regularizer="l1", kernel_regularizer="l2")
    x = torch.randn(2, 4)
    with fanin.collect_losses() as record:
        layer(x), layer(2 * x), layer(3 * x)
        assert len(layer.losses) == 4
    assert len(record.losses) == 3
    total = sum(layer.losses)
    total.backward()
    assert layer.kernel.grad is not None


def test_losses_carry_gradients_into_a_plain_loop():
    layer = Dense(3, kernel_regularizer=regularizers.L2(1.0), activity_regularizer=regularizers.L1(1.0))
    x = torch.randn(2, 4)
    y = layer(x)
    sum(layer.losses).backward()
    expected = 2 * layer.kernel.detach() + x.t() @ y.detach().sign() / 2
    assert torch.allclose(layer.kernel.grad, expected, atol=1e-5)


def test_a_frozen_weight_gives_no_loss():
    layer = Dense(3, kernel_regularizer="l2", bias_regularizer="l2")
    layer.build((None, 4))
    layer.kernel.requires_grad_(False)
    assert len(layer.losses) == 1
    layer.trainable = False
    assert layer.losses == []
    layer.trainable = True
    assert len(layer.losses) == 2


def test_losses_of_a_first_call_under_no_grad_are_plain_numbers():
    layer = Dense(3, activity_regularizer="l1", kernel_regularizer="l1")
    with torch.no_grad():
        layer(torch.ones(2, 4))
    assert layer.losses[0].requires_grad
    assert not layer.losses[1].requires_grad


# --- 27 updates -------------------------------------------------------------------------------------------


class Counting(Layer):
    """Adds, in each call, an update of each kind."""

    def build(self, input_shape):
        self.count = self.add_weight("count", (), initializer="zeros", trainable=False)
        self.scale = self.add_weight("scale", (), initializer="ones")

    def call(self, inputs):
        self.add_update(lambda: self.count.add_(1))
        self.add_update((self.count, inputs.sum()), inputs=inputs)
        return inputs * self.scale


def test_updates_in_training_order_and_none_while_frozen():
    layer = Counting()
    layer(torch.ones(2, 4))
    first, second = layer.updates
    assert callable(first)
    assert second[0] is layer.count
    assert second[1].item() == 8.0
    layer.trainable = False
    assert layer.updates == []
    layer.trainable = True
    assert len(layer.updates) == 2


def test_an_update_is_handed_back_as_it_was_given():
    layer = Dense(3, input_shape=(4,))
    layer.build((None, 4))
    marker, function, pair = object(), (lambda: None), (layer.bias, 3.0)
    layer.add_update([marker, function])
    layer.add_update(pair)
    assert [a is b for a, b in zip(layer.updates, [marker, function, pair], strict=True)] == [True] * 3


def test_updates_of_symbolic_calls():
    layer = Counting()
    x = Input((4,))
    layer(x)
    first, (weight, value) = layer.updates
    assert callable(first)
    assert weight is layer.count
    assert isinstance(value, fanin.SymbolicTensor)
    assert value.shape == ()


# --- 28 to 33 weights -------------------------------------------------------------------------------------


class Mixed(Layer):
    def build(self, input_shape):
        self.a = self.add_weight("a", (1,), trainable=False)
        self.b = self.add_weight("b", (2,))
        self.c = self.add_weight("c", (3,), trainable=False)
        self.d = self.add_weight("d", (4,))

    def call(self, inputs):
        return inputs


def sizes(weights):
    return [w.numel() for w in weights]


def test_weights_are_ordered_by_declared_trainability_then_creation():
    layer = Mixed()
    assert layer.weights == layer.variables == layer.trainable_weights == []
    layer(torch.ones(1))
    assert sizes(layer.weights) == sizes(layer.variables) == [2, 4, 1, 3]
    assert sizes(layer.trainable_weights) == sizes(layer.trainable_variables) == [2, 4]
    assert sizes(layer.non_trainable_weights) == sizes(layer.non_trainable_variables) == [1, 3]


def test_freezing_never_reorders_weights():
    layer = Mixed()
    layer(torch.ones(1))
    before = layer.weights
    layer.b.requires_grad_(False)
    assert all(a is b for a, b in zip(before, layer.weights, strict=True))
    assert sizes(layer.trainable_weights) == [4]
    assert sizes(layer.non_trainable_weights) == [2, 1, 3]
    layer.trainable = False
    assert all(a is b for a, b in zip(before, layer.weights, strict=True))
    assert layer.trainable_weights == []
    assert sizes(layer.non_trainable_weights) == [2, 4, 1, 3]


def test_weights_of_a_model_go_layer_by_layer_and_shared_ones_count_once():
    first = Dense(3)
    model = fanin.Sequential([Input((3,)), first, Dense(3, use_bias=False), torch.nn.Linear(3, 2)])
    assert [tuple(w.shape) for w in model.weights] == [(3, 3), (3,), (3, 3), (2, 3), (2,)]
    model.layers[1].kernel = first.kernel
    assert [tuple(w.shape) for w in model.weights] == [(3, 3), (3,), (2, 3), (2,)]


def test_trainable_and_requires_grad_are_one_truth():
    layer = Dense(3, trainable=False)
    assert layer.trainable is False
    layer.build((None, 4))
    assert not layer.kernel.requires_grad
    assert layer.trainable is False
    layer.trainable = True
    assert layer.kernel.requires_grad
    layer.requires_grad_(False)
    assert layer.trainable is False
    assert layer.get_config()["trainable"] is False
    layer.bias.requires_grad_(True)
    assert layer.trainable is True
    with pytest.raises(TypeError, match="must be True or False"):
        layer.trainable = "yes"


def test_freezing_before_the_first_call_holds_after_it():
    layer = Dense(3)
    layer.trainable = False
    layer(torch.ones(2, 4))
    assert layer.trainable_weights == []
    late = Counting()
    late.trainable = False
    late(torch.ones(2, 4))
    assert not late.scale.requires_grad
