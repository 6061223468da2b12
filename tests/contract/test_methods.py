"""Rows 34 to 57: what a layer's methods do."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch

import fanin
from fanin import regularizers
from fanin.layers import Dense, Input, Layer
from fanin.registry import deserialize, serialize

# --- 34, 35 calls -----------------------------------------------------------------------------------------


def test_a_new_layer_has_no_weights_and_no_calls():
    layer = Dense(3)
    assert isinstance(layer, Layer)
    assert isinstance(layer, torch.nn.Module)
    assert not layer.built
    assert layer.weights == layer.losses == layer.updates == layer.inbound_nodes == layer.outbound_nodes == []


def test_a_call_on_a_symbol_builds_adds_a_node_and_sets_the_history():
    x = Input((4,))
    layer = Dense(3)
    y = layer(x)
    assert layer.built
    assert layer.kernel.shape == (4, 3)
    (node,) = layer.inbound_nodes
    assert y._keras_history == (layer, 0, 0)
    assert node.input_tensors == [x]
    assert node.output_tensors == [y]
    assert node.inbound_layers == [x.layer]
    assert x.layer.outbound_nodes == [node]
    assert y.dtype == torch.float32
    assert layer(x)._keras_history == (layer, 1, 0)


def test_a_call_without_the_shape_it_needs_is_a_value_error():
    layer = Dense(3)
    with pytest.raises(ValueError, match="last dimension of the input must be known"):
        layer(Input((None,)))
    assert not layer.built
    assert layer.inbound_nodes == []
    layer(Input((4,)))
    layer(Input((None,)))
    assert len(layer.inbound_nodes) == 2


class Options(Layer):
    """Notes what reached `call`."""

    def call(self, inputs, scale, shift=0.0, *, names=(), training=None):
        self.seen = (scale, shift, names, training)
        return inputs * scale + shift


@pytest.mark.parametrize("symbolic", [False, True])
def test_positional_and_keyword_arguments_reach_call(symbolic):
    layer = Options()
    layer(Input((4,)) if symbolic else torch.ones(1, 4), 2, shift=3.5, names=("a", {"b": None}), training=True)
    assert layer.seen == (2, 3.5, ("a", {"b": None}), True)
    assert [type(value) for value in layer.seen[:2]] == [int, float]


@pytest.mark.parametrize("x", [torch.ones(2, 4), Input((4,))], ids=["real", "symbolic"])
def test_the_inputs_may_be_given_by_name(x):
    layer = Dense(3)
    assert layer(inputs=x).shape[-1] == 3
    assert layer.kernel.shape == (4, 3)


def test_a_call_without_inputs_is_a_type_error():
    with pytest.raises(TypeError):
        Dense(3)()


# --- 36 copies --------------------------------------------------------------------------------------------


def used_layer() -> Dense:
    """After calls that recorded nodes, losses, masks and gradients."""
    layer = Dense(
        3, "relu", kernel_regularizer="l2", activity_regularizer="l1", kernel_constraint="non_neg", name="used"
    )
    layer(Input((4,)))
    layer(torch.randn(2, 4)).sum().backward()
    layer(torch.randn(2, 4, requires_grad=True), mask=torch.ones(2))
    return layer


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("maker", [used_layer, lambda: Dense(3, name="fresh", trainable=False)])
def test_copies_are_equal_and_share_nothing(twin_of, maker):
    layer = maker()
    twin = twin_of(layer)
    assert twin.get_config() == layer.get_config()
    assert twin.built == layer.built
    assert twin.inbound_nodes == twin.outbound_nodes == []
    assert [torch.equal(a, b) for a, b in zip(twin.weights, layer.weights, strict=True)] == [True] * len(layer.weights)
    storages = {w.data_ptr() for w in layer.weights}
    assert not any(w.data_ptr() in storages for w in twin.weights)
    x = torch.randn(2, 4)
    before = layer(x).detach().clone()
    with torch.no_grad():
        twin(x)
        for weight in twin.weights:
            weight.add_(1)
    assert torch.equal(layer(x), before)
    assert len(twin.losses) == len(layer.losses)
    assert twin.kernel.requires_grad == layer.kernel.requires_grad
    assert twin.kernel_constraint == layer.kernel_constraint or twin.kernel_constraint is not layer.kernel_constraint


def test_a_copy_of_an_unbuilt_layer_builds_by_itself():
    layer = Dense(3)
    twin = copy.deepcopy(layer)
    twin(torch.ones(2, 4))
    assert not layer.built
    layer(torch.ones(2, 5))
    assert layer.kernel.shape == (5, 3)
    assert twin.kernel.shape == (4, 3)


def test_a_copy_keeps_losses_and_updates_that_are_functions():
    layer = Dense(3)
    layer.add_loss(_one)
    layer.add_update(_one)
    twin = copy.deepcopy(layer)
    assert [loss.item() for loss in twin.losses] == [1.0]
    assert len(twin.updates) == 1


def _one():
    return torch.tensor(1.0)


def test_a_copy_shares_tied_weights_as_the_original_does():
    first, second = Dense(4), Dense(4)
    model = fanin.Sequential([Input((4,)), first, second])
    second.kernel = first.kernel
    twin = copy.deepcopy(model)
    assert twin.layers[0].kernel is twin.layers[1].kernel
    assert twin.layers[0].kernel is not first.kernel


# --- 37 to 40 losses and updates by inputs ----------------------------------------------------------------


def test_add_loss_takes_one_or_a_list():
    layer = Dense(3)
    one, two, three = (torch.tensor(float(i)) for i in range(3))
    layer.add_loss(one)
    layer.add_loss([two, three])
    assert [a is b for a, b in zip(layer.losses, [one, two, three], strict=True)] == [True] * 3
    assert layer.get_losses_for(None) == layer.losses


def test_losses_for_given_inputs_are_the_same_objects():
    layer = Dense(3)
    a, b = torch.ones(1), torch.ones(1)
    of_a, of_b, of_both, of_none = (torch.tensor(float(i)) for i in range(4))
    layer.add_loss(of_a, inputs=a)
    layer.add_loss(of_b, inputs=[b])
    layer.add_loss(of_both, inputs=[a, b])
    layer.add_loss(of_none)
    assert [id(x) for x in layer.get_losses_for(a)] == [id(of_a), id(of_both)]
    assert [id(x) for x in layer.get_losses_for([a])] == [id(of_a), id(of_both)]
    assert [id(x) for x in layer.get_losses_for(b)] == [id(of_b), id(of_both)]
    assert [id(x) for x in layer.get_losses_for(None)] == [id(of_none)]
    assert len(layer.losses) == 4


def test_unconditional_losses_hold_the_penalties_of_weights():
    layer = Dense(3, kernel_regularizer="l2", activity_regularizer="l2")
    x = Input((4,))
    layer(x)
    assert len(layer.get_losses_for(None)) == 1
    assert len(layer.get_losses_for(x)) == 1
    assert layer.get_losses_for(Input((4,))) == []


def test_a_loss_added_outside_a_call_that_has_a_history_warns():
    layer = Dense(3)
    x = torch.ones(2, 4)
    with pytest.warns(UserWarning, match="keeps the value it has now"):
        layer.add_loss(layer(x).sum())


def test_updates_for_given_inputs_are_the_same_objects():
    layer = Dense(3)
    a, b = Input((4,)), Input((4,))
    of_a, of_b, of_none = object(), (lambda: None), object()
    layer.add_update(of_a, inputs=[a])
    layer.add_update([of_b], inputs=b)
    layer.add_update(of_none)
    assert layer.get_updates_for(a) == layer.get_updates_for([a]) == [of_a]
    assert layer.get_updates_for(b) == [of_b]
    assert layer.get_updates_for(None) == [of_none]
    assert layer.updates == [of_a, of_b, of_none]
    layer.trainable = False
    assert layer.get_updates_for(a) == layer.get_updates_for(None) == layer.updates == []


def test_conditional_losses_follow_the_graph():
    x = Input((4,))
    first, last = Dense(4), Dense(3, activity_regularizer="l2")
    h = first(x)
    last(h)
    assert len(last.get_losses_for(h)) == 1
    assert last.get_losses_for(x) == last.get_losses_for(h)


# --- 41, 42 weights ---------------------------------------------------------------------------------------


def test_add_variable_creates_or_returns_the_existing_one():
    layer = Dense(3)
    first = layer.add_variable("extra", (2, 3), initializer="ones", regularizer="l2")
    again = layer.add_variable("extra", (2, 3), initializer="zeros", regularizer="l2")
    assert again is first
    assert isinstance(first, torch.nn.Parameter)
    assert torch.equal(first, torch.ones(2, 3))
    assert len(layer.losses) == 1
    assert layer.extra is first
    with pytest.raises(ValueError, match=r"'extra' of shape \(2, 3\), found \(3, 2\)"):
        layer.add_variable("extra", (3, 2))


def test_add_variable_inside_build_and_dtypes():
    class Own(Layer):
        def build(self, input_shape):
            self.add_variable("w", (input_shape[-1],), dtype="float64")
            self.add_variable("steps", (), dtype="int64", trainable=False)

        def call(self, inputs):
            return inputs * self.w

    layer = Own()
    layer(torch.ones(2, 4))
    assert layer.w.dtype == torch.float64
    assert layer.steps.dtype == torch.int64
    assert layer.steps.item() == 0
    assert [tuple(w.shape) for w in layer.weights] == [(4,), ()]
    assert list(layer.state_dict()) == ["w", "steps"]


def test_add_weight_takes_the_order_of_2017_and_that_of_keras_3():
    layer = Dense(3)
    old = layer.add_weight("old", (2,), "float64", "ones", "l2", False, "non_neg")
    new = layer.add_weight((2,), "ones", "float64", False, True, "l2", "non_neg", "none", False, "new")
    for weight in (old, new):
        assert weight.tolist() == [1.0, 1.0]
        assert weight.dtype == torch.float64
        assert not weight.requires_grad
    assert layer.old is old
    assert layer.new is new
    keyword = layer.add_weight(shape=(3,), name="keyword", initializer="zeros", trainable=True)
    assert layer.keyword is keyword
    scalar = layer.add_weight(name="scalar")
    assert scalar.shape == ()
    assert layer.add_weight(shape=5, name="five").shape == (5,)


@pytest.mark.parametrize("name", ["a.b", "a/b", "", "a b", "a:0", 3])
def test_names_of_weights(name):
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        Dense(3).add_weight(name=name, shape=(2,))


@pytest.mark.parametrize("shape", [(None,), (2, -1), (2.0,), (True,), "ab"])
def test_shapes_of_weights(shape):
    with pytest.raises(ValueError, match="must be made of known sizes"):
        Dense(3).add_weight(name="w", shape=shape)


def test_add_weight_refuses_what_it_does_not_know():
    with pytest.raises(TypeError, match="no argument 'colour'"):
        Dense(3).add_weight(name="w", shape=(2,), colour="red")
    with pytest.raises(TypeError, match="got 'shape' twice"):
        Dense(3).add_weight("w", (2,), shape=(2,))
    with pytest.raises(TypeError, match="at most 7 positional"):
        Dense(3).add_weight("w", (2,), "float32", "ones", None, True, None, 8)


def test_a_constraint_of_a_weight_is_applied_after_each_update():
    class Own(Layer):
        def build(self, input_shape):
            self.w = self.add_weight("w", (4,), constraint="non_neg", initializer="ones")

        def call(self, inputs):
            return inputs * self.w

    layer = Own()
    x = torch.ones(2, 4)
    layer(x)
    optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    fanin.attach(optimizer, layer)
    layer(x).sum().backward()
    optimizer.step()
    assert layer.w.tolist() == [0.0] * 4


# --- 43 to 46 ---------------------------------------------------------------------------------------------


def test_apply_is_the_call_or_the_walk_of_pytorch():
    layer = Dense(3)
    x = torch.ones(2, 4)
    assert torch.equal(layer.apply(x), layer(x))
    assert layer.apply(Input((4,))).shape == (None, 3)
    assert Options().apply(x, 2.0, shift=1.0).tolist() == [[3.0] * 4] * 2
    seen = []
    assert layer.apply(seen.append) is layer
    assert seen == [layer]
    model = torch.nn.Sequential(layer, torch.nn.ReLU())
    seen.clear()
    model.apply(seen.append)
    assert seen == [layer, model[1], model]


def test_build_makes_the_weights_once():
    layer = Dense(3)
    layer.build((None, 4))
    kernel = layer.kernel
    layer.build((None, 4))
    layer.build((8, 4))
    assert layer.kernel is kernel
    assert layer.built
    assert layer.get_build_config() == {"input_shape": [None, 4]}


def test_call_is_the_bare_computation():
    layer = Dense(3, activity_regularizer="l2")
    layer.build((None, 4))
    x = torch.randn(2, 4)
    y = layer.call(x)
    assert torch.equal(y, layer(x))
    fresh = Dense(3, activity_regularizer="l2", weights=layer.get_weights())
    fresh.build((None, 4))
    fresh.call(x)
    assert fresh.losses == []
    with pytest.raises(NotImplementedError, match="has no `call` method"):
        Layer()(x)


def test_compute_mask():
    mask = torch.tensor([True, False])
    x = torch.ones(2, 4)
    assert Dense(3).compute_mask(x, mask) is mask
    assert Dense(3).compute_mask(x) is None
    plain = Options()
    assert plain.compute_mask(x) is None
    assert plain.compute_mask([x, x], [None, None]) is None
    with pytest.raises(TypeError, match="does not support masking"):
        plain.compute_mask(x, mask)
    with pytest.raises(TypeError, match="does not support masking"):
        plain.compute_mask([x, x], [None, mask])


def test_in_a_call_a_layer_without_masks_drops_it_with_a_warning():
    class Plain(Layer):
        def call(self, inputs):
            return inputs

    with pytest.warns(UserWarning, match="the mask ends here"):
        Plain()(torch.ones(2, 4), mask=torch.ones(2))
    with pytest.warns(UserWarning, match="the mask ends here"):
        y = Plain()(Input((4,)), mask=Input(()))
    assert y.mask is None


# --- 47 to 49 ---------------------------------------------------------------------------------------------


def test_count_params():
    layer = Dense(3)
    with pytest.raises(ValueError, match="no weights to count yet"):
        layer.count_params()
    layer.build((None, 4))
    assert layer.count_params() == 4 * 3 + 3
    layer.trainable = False
    assert layer.count_params() == 15
    assert Dense(3, use_bias=False, input_shape=(4,)).apply(Input((4,))).layer.count_params() == 12


FULL = {
    "units": 3, "activation": "gelu", "use_bias": False, "kernel_initializer": "he_normal", "bias_initializer": "ones",
    "kernel_regularizer": regularizers.L1L2(0.1, 0.2), "bias_regularizer": "l2", "activity_regularizer": "l1",
    "kernel_constraint": "max_norm", "bias_constraint": "non_neg", "name": "full", "trainable": False,
    "dtype": "mixed_bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("arguments", [{"units": 3}, FULL], ids=["defaults", "everything"])
def test_config_is_plain_json_and_comes_back(arguments):
    layer = Dense(**arguments)
    config = layer.get_config()
    kept = json.loads(json.dumps(config))
    assert kept == config
    twin = Dense.from_config(config)
    assert config == kept
    assert twin.get_config() == config
    assert type(twin.activation) is type(layer.activation)
    assert twin.trainable == layer.trainable
    assert twin.dtype_policy == layer.dtype_policy


def test_config_has_the_keys_and_order_of_keras():
    assert list(Dense(3, activity_regularizer="l2").get_config()) == [
        "name", "trainable", "dtype", "activity_regularizer", "units", "activation", "use_bias", "kernel_initializer",
        "bias_initializer", "kernel_regularizer", "bias_regularizer", "kernel_constraint", "bias_constraint",
    ]  # fmt: skip


def test_a_config_of_keras_2_is_read():
    config = {
        "name": "dense_7", "trainable": True, "batch_input_shape": [None, 4], "dtype": "float32", "units": 3,
        "activation": "relu", "use_bias": True,
        "kernel_initializer": {"class_name": "VarianceScaling",
                               "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None}},
        "bias_initializer": {"class_name": "Zeros", "config": {}},
        "kernel_regularizer": {"class_name": "L1L2", "config": {"l1": 0.1, "l2": 0.2}},
        "bias_regularizer": None, "activity_regularizer": None,
        "kernel_constraint": {"class_name": "MaxNorm", "config": {"max_value": 2, "axis": 0}}, "bias_constraint": None,
    }  # fmt: skip
    before = json.dumps(config)
    layer = Dense.from_config(config)
    assert json.dumps(config) == before
    assert layer.batch_input_shape == (None, 4)
    assert layer.kernel_regularizer.l2 == 0.2
    assert layer.kernel_constraint.max_value == 2
    assert layer.name == "dense_7"
    assert fanin.Sequential([layer]).output_shape == (None, 3)


def test_a_config_of_keras_3_is_read_with_its_extra_keys():
    config = {**Dense(3).get_config(), "quantization_config": None}
    assert Dense.from_config(config).units == 3
    described = {"module": "keras.layers", "class_name": "Dense", "config": config, "registered_name": None}
    assert isinstance(deserialize(described), Dense)


def test_a_function_that_no_file_could_bring_back_is_refused_by_name():
    with pytest.raises(ValueError, match=r"argument 'kernel_regularizer'.*lambda"):
        Dense(3, kernel_regularizer=lambda w: w.sum()).get_config()


def test_build_config_brings_the_weights_back():
    layer = Dense(3)
    layer(torch.ones(2, 5, 4))
    twin = deserialize(json.loads(json.dumps(serialize(layer))))
    assert twin.built
    assert twin.kernel.shape == (4, 3)


# --- 50 to 55 ---------------------------------------------------------------------------------------------


def test_get_at_each_call():
    a, b = Input((4,)), Input((7, 4))
    layer = Dense(3)
    y, z = layer(a), layer(b)
    assert [layer.get_input_at(i) for i in (0, 1)] == [a, b]
    assert [layer.get_output_at(i) for i in (0, 1)] == [y, z]
    assert [layer.get_input_shape_at(i) for i in (0, 1)] == [(None, 4), (None, 7, 4)]
    assert [layer.get_output_shape_at(i) for i in (0, 1)] == [(None, 3), (None, 7, 3)]
    assert [layer.get_input_mask_at(i) for i in (0, 1)] == [None, None]
    assert [layer.get_output_mask_at(i) for i in (0, 1)] == [None, None]


@pytest.mark.parametrize("what", ["input", "output", "input_mask", "output_mask", "input_shape", "output_shape"])
@pytest.mark.parametrize("index", [2, 99, -3])
def test_a_missing_index_says_how_many_there_are(what, index):
    layer = Dense(3)
    layer(Input((4,))), layer(Input((4,)))
    with pytest.raises(ValueError, match="it has 2"):
        getattr(layer, f"get_{what}_at")(index)


def test_masks_at_each_call():
    class Positive(Layer):
        def call(self, inputs):
            return inputs

        def compute_mask(self, inputs, mask=None):
            return inputs[..., 0] > 0

    masked = Positive()(Input((4,)))
    layer = Dense(3)
    layer(masked), layer(Input((4,)))
    assert layer.get_input_mask_at(0) is layer.get_output_mask_at(0) is masked.mask
    assert layer.get_input_mask_at(1) is layer.get_output_mask_at(1) is None


# --- 56, 57 -----------------------------------------------------------------------------------------------


def test_get_weights_gives_copies_in_order():
    layer = Dense(3)
    assert layer.get_weights() == []
    layer.build((None, 4))
    kernel, bias = layer.get_weights()
    assert isinstance(kernel, np.ndarray)
    assert kernel.shape == (4, 3)
    assert bias.tolist() == [0.0, 0.0, 0.0]
    kernel[:] = 7
    assert not (layer.kernel == 7).any()
    assert layer.to(torch.bfloat16).get_weights()[0].dtype == np.float32


def test_set_weights_round_trip():
    layer = Dense(3)
    layer.build((None, 4))
    parameter = layer.kernel
    kernel, bias = np.arange(12.0).reshape(4, 3), [1, 2, 3]
    layer.set_weights([kernel, bias])
    assert layer.kernel is parameter
    assert layer.kernel.tolist() == kernel.tolist()
    assert layer.bias.tolist() == [1.0, 2.0, 3.0]
    layer.set_weights(layer.get_weights())
    assert layer.kernel.tolist() == kernel.tolist()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([np.ones((4, 3))], r"has 2 weights, found 1"),
        ([np.ones((4, 3))] * 3, r"has 2 weights, found 3"),
        ([np.ones((4, 3)), np.ones(4)], r"'bias'.*\(3,\).*\(4,\)"),
        ([np.ones((3, 4)), np.ones(3)], r"'kernel'.*\(4, 3\).*\(3, 4\)"),
        ([np.ones((1, 3)), np.ones(3)], r"'kernel'.*\(4, 3\).*\(1, 3\)"),
        ([np.ones((4, 3)), np.full(3, 1e300)], r"\.bias: the value 1e\+300 does not fit float32"),
        ([np.ones((4, 3)), np.full(3, 1j)], "'bias' of layer .* takes real numbers, found torch.complex128"),
    ],
)
def test_set_weights_refuses_and_changes_nothing(weights, message):
    layer = Dense(3)
    layer.build((None, 4))
    before = layer.get_weights()
    with pytest.raises((ValueError, TypeError), match=message):
        layer.set_weights(weights)
    for a, b in zip(before, layer.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_set_weights_before_build_is_refused():
    with pytest.raises(ValueError, match="no weights to set yet"):
        Dense(3).set_weights([np.ones((4, 3)), np.ones(3)])


def test_set_weights_refuses_objects():
    layer = Dense(3)
    layer.build((None, 4))
    with pytest.raises(TypeError, match="array of numbers"):
        layer.set_weights([np.full((4, 3), "x"), np.ones(3)])
