"""Custom layers: what a subclass may write, and what it gets."""

from __future__ import annotations

import copy
import json
import threading

import numpy as np
import pytest
import torch
from torch import nn

import fanin
from fanin import initializers
from fanin.layers import Dense, Input, InputSpec, Layer
from fanin.registry import deserialize, register_keras_serializable, serialize


class Double(Layer):
    def call(self, inputs):
        return 2 * inputs


def test_a_layer_without_weights():
    layer = Double()
    assert layer(torch.ones(2, 3)).tolist() == [[2.0] * 3] * 2
    assert layer.built
    assert layer.count_params() == 0
    assert layer.weights == []
    assert layer(Input((3,))).shape == (None, 3)


# --- weights as attributes ------------------------------------------------------------------------------------


class Unnamed(Layer):
    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1],), initializer="ones", regularizer="l2")
        self.total = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.more = [self.add_weight(shape=(2,)), self.add_weight(shape=(3,))]

    def call(self, inputs):
        return inputs * self.w


def test_an_unnamed_weight_takes_the_name_of_its_attribute():
    layer = Unnamed()
    layer(torch.ones(2, 4))
    assert list(layer.state_dict()) == ["w", "variable", "variable_1", "total"]
    assert len(layer.losses) == 1
    layer.w.requires_grad_(False)
    assert layer.losses == []
    twin = copy.deepcopy(layer)
    assert twin.w.shape == (4,)
    assert twin.w is not layer.w


class TwoUnnamed(Layer):
    def build(self, input_shape):
        first, second = self.add_weight((2,)), self.add_weight((3,))
        self.a = first
        third, fourth = self.add_weight((3,)), self.add_weight((4,))
        self.found = [tuple(weight.shape) for weight in (first, second, third, fourth)]

    def call(self, inputs):
        return inputs


def test_unnamed_weights_are_all_different():
    layer = TwoUnnamed()
    layer(torch.ones(2, 4))
    assert layer.found == [(2,), (3,), (3,), (4,)]
    assert sorted(tuple(weight.shape) for weight in layer.weights) == sorted(layer.found)
    assert sorted(layer.state_dict()) == ["a", "variable", "variable_1", "variable_2"]


class Named(Layer):
    def build(self, input_shape):
        self.w = self.add_weight("factor", (input_shape[-1],), initializer="ones")
        self.count = self.add_weight("steps", (), initializer="zeros", trainable=False)

    def call(self, inputs):
        return inputs * self.w


def test_a_named_weight_keeps_its_name_and_the_attribute_is_an_alias():
    layer = Named()
    layer(torch.ones(2, 4))
    assert list(layer.state_dict()) == ["factor", "steps"]
    assert layer.w is layer.factor
    assert layer.count is layer.steps
    assert len(list(layer.parameters())) == 1
    assert layer.weights[0] is layer.w
    twin = copy.deepcopy(layer)
    assert twin.w is twin.factor
    assert twin.w is not layer.w
    layer.load_state_dict({"factor": torch.zeros(4), "steps": torch.tensor(3.0)}, assign=True)
    assert layer.w.tolist() == [0.0] * 4
    assert layer.w is layer.factor


@pytest.mark.parametrize(
    "name", ["input", "output", "losses", "weights", "graph", "scope_name", "updates", "dtype", "input_shape"]
)
def test_names_of_the_contract_are_refused(name):
    class Shadow(Layer):
        def __init__(self):
            super().__init__()
            setattr(self, name, nn.Linear(2, 2))

    with pytest.raises(AttributeError, match=rf"'{name}' is a part of the layer contract.*'{name}_layer'"):
        Shadow()


def test_sublayers_lists_of_layers_and_modules_are_found():
    class Tower(Layer):
        def __init__(self):
            super().__init__()
            self.stem = Dense(4)
            self.blocks = nn.ModuleList([Dense(4), nn.Linear(4, 4)])

        def call(self, inputs):
            x = self.stem(inputs)
            for block in self.blocks:
                x = block(x)
            return x

    layer = Tower()
    layer(torch.ones(2, 3))
    assert [tuple(w.shape) for w in layer.weights] == [(3, 4), (4,), (4, 4), (4,), (4, 4), (4,)]
    layer.trainable = False
    assert not any(p.requires_grad for p in layer.parameters())
    assert not layer.stem.trainable


# --- build ----------------------------------------------------------------------------------------------------


def test_a_failing_build_leaves_nothing():
    class Fails(Layer):
        def build(self, input_shape):
            self.add_weight("a", (2,))
            self.add_weight("b", (2,), trainable=False)
            self.inner = Dense(2)
            self.input_spec = InputSpec(ndim=2)
            if input_shape[-1] == 3:
                raise RuntimeError("no threes")

        def call(self, inputs):
            return inputs

    layer = Fails()
    with pytest.raises(RuntimeError, match="no threes"):
        layer(torch.ones(2, 3))
    assert not layer.built
    assert layer.weights == []
    assert not hasattr(layer, "inner")
    assert layer.input_spec is None
    layer(torch.ones(2, 4))
    assert layer.built
    assert len(layer.weights) == 2


def test_after_a_failing_build_an_optimizer_still_holds_the_weights():
    state = {"fail": True}

    def initializer(shape, dtype=None):
        if state["fail"]:
            raise OSError("disk is gone")
        return torch.ones(shape, dtype=dtype)

    layer = Dense(3, bias_initializer=initializer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    with pytest.raises(OSError, match="disk is gone"):
        layer(torch.ones(2, 4))
    assert layer.weights == []
    state["fail"] = False
    assert layer(torch.ones(2, 5)).shape == (2, 3)
    assert optimizer.param_groups[0]["params"][0] is layer.kernel
    before = layer.kernel.detach().clone()
    layer(torch.ones(2, 5)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, layer.kernel)


def test_build_gets_the_shapes_of_all_inputs():
    seen = []

    class Notes(Layer):
        def build(self, input_shape):
            seen.append(input_shape)

        def call(self, inputs):
            return inputs[0] if isinstance(inputs, list) else next(iter(inputs.values()))

    Notes()([torch.ones(2, 3), torch.ones(2, 4)])
    Notes()([Input((3,)), Input((4,))])
    Notes()({"a": torch.ones(2, 3), "b": torch.ones(2)})
    assert seen == [[(2, 3), (2, 4)], [(None, 3), (None, 4)], {"a": (2, 3), "b": (2,)}]


def test_super_build_and_built_in_the_style_of_keras():
    class Base(Layer):
        def build(self, input_shape):
            self.a = self.add_weight("a", (input_shape[-1],))
            self.built = True

        def call(self, inputs):
            return inputs * self.a

    class More(Base):
        def build(self, input_shape):
            super().build(input_shape)
            self.b = self.add_weight("b", (input_shape[-1],))
            super(Base, self).build(input_shape)

        def call(self, inputs):
            return super().call(inputs) + self.b

    layer = More()
    layer(torch.ones(2, 3))
    assert list(layer.state_dict()) == ["a", "b"]


def test_a_second_thread_waits_for_the_build():
    started, go_on = threading.Event(), threading.Event()

    class Slow(Layer):
        def build(self, input_shape):
            started.set()
            assert go_on.wait(10)
            self.w = self.add_weight("w", (), initializer="ones")

        def call(self, inputs):
            return inputs * self.w

    layer, outputs = Slow(), []
    threads = [threading.Thread(target=lambda: outputs.append(layer(torch.ones(1)))) for _ in range(2)]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert [y.item() for y in outputs] == [1.0, 1.0]


# --- training -------------------------------------------------------------------------------------------------


class Mode(Layer):
    def call(self, inputs, training=None):
        self.seen = training
        return inputs


class Outer(Layer):
    def __init__(self):
        super().__init__()
        self.mode = Mode()

    def call(self, inputs):
        return self.mode(inputs)


def test_training_at_the_call_wins_then_the_enclosing_call_then_the_module():
    x = torch.ones(1, 2)
    layer = Mode()
    layer(x)
    assert layer.seen is True  # as a new nn.Module
    layer.eval()
    layer(x)
    assert layer.seen is False
    layer(x, training=True)
    assert layer.seen is True

    outer = Outer()
    outer(x, training=False)
    assert outer.mode.seen is False
    outer.eval()
    outer(x, training=True)
    assert outer.mode.seen is True
    outer(x)
    assert outer.mode.seen is False
    layer(x, training=None)
    assert layer.seen is False


def test_training_reaches_torch_modules_inside_and_their_mode_comes_back():
    model = fanin.Sequential([Input((400,)), nn.Dropout(0.5)])
    x = torch.ones(1, 400)
    assert torch.equal(model(x), x)
    assert (model(x, training=True) == 0).any()
    assert not model.layers[0].training
    model.train()
    assert (model(x) == 0).any()
    assert torch.equal(model(x, training=False), x)
    assert model.layers[0].training


# --- configs --------------------------------------------------------------------------------------------------


class Auto(Layer):
    """Has no get_config of its own."""

    def __init__(self, size, factor=2.0, *, start="zeros", inner=None, **kwargs):
        super().__init__(**kwargs)
        self.size, self.factor = size, factor
        self.start = initializers.get(start)
        self.inner = inner

    def call(self, inputs):
        return inputs * self.factor


def test_the_config_of_a_layer_without_get_config():
    layer = Auto(3, start=initializers.Constant(5.0), inner=Dense(2, name="inner"), name="auto", trainable=False)
    config = json.loads(json.dumps(layer.get_config()))
    assert config["size"] == 3
    assert config["name"] == "auto"
    kept = copy.deepcopy(config)
    twin = Auto.from_config(config)
    assert config == kept
    assert (twin.size, twin.factor, twin.name, twin.trainable) == (3, 2.0, "auto", False)
    assert twin.start.value == 5.0
    assert isinstance(twin.inner, Dense)
    assert twin.inner.name == "inner"
    assert twin.get_config() == layer.get_config()


def test_arguments_that_are_no_plain_data_ask_for_a_get_config():
    with pytest.raises(NotImplementedError, match="needs a get_config"):
        Auto(3, factor=object()).get_config()

    class Sizes(Layer):
        def __init__(self, *sizes, **options):
            super().__init__(**options)

    with pytest.raises(NotImplementedError, match="needs a get_config"):
        Sizes(1, 2).get_config()
    assert Sizes(name="a").get_config()["name"] == "a"
    assert Sizes.from_config(Sizes(trainable=False).get_config()).trainable is False


@register_keras_serializable("tests")
class Registered(Layer):
    def __init__(self, size=1, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs):
        return inputs * self.size

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def test_a_registered_layer_comes_back_inside_a_model():
    model = fanin.Sequential([Input((2,)), Registered(3)])
    described = json.loads(json.dumps(serialize(model)))
    twin = deserialize(described)
    assert twin(torch.ones(1, 2)).tolist() == [[3.0, 3.0]]
    assert described["config"]["layers"][1]["registered_name"] == "tests>Registered"


def test_config_and_copies_hold_no_arguments_that_the_layer_has_used_up():
    layer = Dense(3, weights=[np.ones((4, 3)), np.ones(3)])
    layer.build((None, 4))
    assert not any(isinstance(value, np.ndarray) for value in layer.__dict__.values())
    assert "_init_arguments" not in layer.__dict__


# --- calls ----------------------------------------------------------------------------------------------------


def test_options_that_are_no_tensors_stay_as_they_are():
    class Takes(Layer):
        def call(self, inputs, *others, **options):
            self.seen = others, options
            return inputs

    layer, marker = Takes(), object()
    layer(torch.ones(1), 3, 2.5, "a", True, None, what=marker, cls=dict, shape=(1, 2))
    assert layer.seen == ((3, 2.5, "a", True, None), {"what": marker, "cls": dict, "shape": (1, 2)})
    layer(torch.ones(1), np.ones(2), other=torch.ones(2, dtype=torch.float64))
    (array,), options = layer.seen
    assert isinstance(array, torch.Tensor)
    assert array.dtype == options["other"].dtype == torch.float32


def test_integer_inputs_are_cast_only_where_the_layer_says_so():
    class Sees(Layer):
        def call(self, inputs):
            self.seen = inputs.dtype
            return inputs

    layer = Sees()
    layer(torch.ones(2, dtype=torch.int64))
    assert layer.seen == torch.int64
    assert Dense(2)(torch.ones(2, 3, dtype=torch.int64)).dtype == torch.float32
    with pytest.raises(TypeError, match="takes real numbers"):
        Dense(2)(torch.ones(2, 3, dtype=torch.complex64))


def test_a_layer_that_cannot_be_tried_says_so():
    class NeedsValues(Layer):
        def call(self, inputs):
            return inputs * {12.0: 1.0}[float(inputs.sum())]  # neither zeros nor ones will do

    with pytest.raises(ValueError, match=r"could not be tried on symbolic tensors.*compute_output_shape"):
        NeedsValues()(Input((3,)))

    class Says(NeedsValues):
        def compute_output_shape(self, input_shape):
            return input_shape

    assert Says()(Input((3,))).shape == (None, 3)
    model = fanin.Sequential([NeedsValues(), Dense(2)])
    assert model(torch.full((2, 3), 2.0)).shape == (2, 2)
    assert model.built


def test_compute_output_shape_of_a_layer_that_does_not_declare_it():
    class Halves(Layer):
        def call(self, inputs):
            return inputs[..., ::2], inputs[..., 1::2]

    assert Halves().compute_output_shape((None, 6)) == ((None, 3), (None, 3))
    layer = Double()
    assert layer.compute_output_shape((None, 5)) == (None, 5)
    assert layer.inbound_nodes == []


def test_repr_and_names():
    assert repr(Dense(3, name="mine")) == "Dense(3, name='mine')"
    assert "fanin" in repr(Dense)


def test_what_a_frozen_layer_gets_is_frozen():
    layer = Dense(3, activation=nn.PReLU(), trainable=False)
    layer(torch.ones(2, 4))
    assert layer.trainable_weights == []
    assert layer.trainable is False
    layer.trainable = True
    assert len(layer.trainable_weights) == 3


def test_an_activity_regularizer_can_be_set_at_any_time():
    layer, plain = Dense(3), Dense(3)
    x = torch.randn(4, 2)
    model = fanin.Sequential([fanin.Input((2,)), layer, plain])
    for _ in range(2):
        model(x)
    assert model.losses == []
    layer.activity_regularizer = "l2"
    expected = float(layer(x).detach().square().sum()) * 0.01 / 4
    model(x)
    assert [float(loss.detach()) for loss in model.losses] == [pytest.approx(expected, rel=1e-5)]
    layer.activity_regularizer = None
    model(x)
    assert model.losses == []


# --- trials of calls --------------------------------------------------------------------------------------------------


class Counts(fanin.Layer):
    """Counts its calls in place, by an operation that meets no input."""

    def build(self, input_shape):
        self.n = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.n.add_(1.0)
        return x


class Reads(fanin.Layer):
    """Follows its inputs, in a call that needs values."""

    def build(self, input_shape):
        self.n = self.add_weight(shape=(3,), initializer="zeros", trainable=False)

    def call(self, x):
        self.n.copy_(self.n + 10 + 0 * float(x.detach().mean()))
        return x - self.n


@pytest.mark.parametrize("kind", [Counts, Reads])
def test_trials_of_a_call_leave_its_state_alone(kind):
    layer = kind()
    model = fanin.Sequential([fanin.Input((3,)), layer])
    assert model.compute_output_shape((None, 3)) == (None, 3)
    assert not layer.get_weights()[0].any()


@pytest.mark.filterwarnings("ignore:This step runs eagerly")
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_every_batch_counts_once(run_eagerly):
    layer, x = Counts(), torch.randn(6, 3)
    model = fanin.Sequential([fanin.Input((3,)), layer, fanin.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    found = []
    for _ in range(2):
        model.train_on_batch(x, x[:, :1])
        found.append(float(layer.n))
    model.fit(x, x[:, :1], batch_size=2, verbose=0)
    found.append(float(layer.n))
    model.evaluate(x, x[:, :1], batch_size=2, verbose=0)
    model.predict(x, batch_size=2, verbose=0)
    assert [*found, float(layer.n)] == [1, 2, 5, 11]


def test_state_goes_from_batch_to_batch_in_predict():
    class Follows(fanin.Layer):
        def build(self, input_shape):
            self.n = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.n.copy_(self.n + 1.0)
            return x * 0 + self.n

    model = fanin.Sequential([fanin.Input((3,)), Follows()])
    assert model.predict(np.ones((6, 3), "float32"), batch_size=2, verbose=0)[::2, 0].tolist() == [1, 2, 3]


def test_dtype_policy_takes_names_and_autocast_is_refused():
    layer = fanin.layers.Dense(2)
    layer.dtype_policy = "mixed_bfloat16"
    assert layer(torch.ones(1, 3)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="autocast=False"):
        fanin.layers.Dense(2, autocast=False)
