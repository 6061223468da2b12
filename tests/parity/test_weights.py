"""Weights and the `.h5` of Keras 1 to 3 against real Keras 3.15.1 on its torch backend: equal bit for bit."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import h5py
import keras
import numpy as np
import pytest
from absl import logging
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin.saving import load_model, load_weights, save_weights

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SIDES = {"fanin": fanin, "keras": keras}
OPTIMIZERS = {
    "sgd": ("SGD", {"learning_rate": 0.05}),
    "momentum": ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {"learning_rate": 0.01}),
    "amsgrad": ("Adam", {"learning_rate": 0.01, "amsgrad": True}),
    "rmsprop": ("RMSprop", {"learning_rate": 0.01, "momentum": 0.5, "centered": True}),
}


@pytest.fixture(autouse=True)
def quiet():
    """Keras says at every save that this format is old."""
    logging.set_verbosity(logging.ERROR)


def other(side):
    return "keras" if side == "fanin" else "fanin"


def data(rows=20, inputs=3, outputs=2):
    generator = np.random.default_rng(1)
    return generator.normal(size=(rows, inputs)).astype("f4"), generator.normal(size=(rows, outputs)).astype("f4")


def values(model):
    return [np.asarray(keras.ops.convert_to_numpy(w)) for w in model.get_weights()]


def equal(one, two):
    for a, b in zip(values(one), values(two), strict=True):
        np.testing.assert_array_equal(a, b)


def chain(lib, optimizer=None, dtype=None):
    layers = lib.layers
    model = lib.Sequential(
        [
            lib.Input((3,)),
            layers.Dense(5, "relu", name="first", kernel_regularizer="l2", dtype=dtype),
            layers.BatchNormalization(dtype=dtype),
            layers.Dropout(0.3),
            lib.Sequential(
                [layers.BatchNormalization(dtype=dtype), layers.Dense(4, "tanh", dtype=dtype)], name="inside"
            ),
            layers.Dense(2, use_bias=False, dtype=dtype),
        ]
    )
    return compiled(lib, model, optimizer)


def graph(lib, optimizer=None):
    layers = lib.layers
    one, two = lib.Input((3,), name="one"), lib.Input((3,), name="two")
    shared = layers.Dense(4, name="shared")
    inner = lib.Sequential([layers.Dense(4, "relu")], name="inner")
    x = layers.Concatenate()([shared(one), shared(two), inner(layers.Add()([shared(one), shared(two)]))])
    return compiled(lib, lib.Model([one, two], layers.Dense(2, name="out")(x), name="graph"), optimizer)


def compiled(lib, model, optimizer):
    if optimizer is not None:
        name, arguments = OPTIMIZERS[optimizer]
        model.compile(getattr(lib.optimizers, name)(**arguments), "mse", metrics=["mae"])
    return model


MODELS = {"chain": chain, "graph": graph}


def inputs(kind, x):
    return x if kind == "chain" else [x, x[::-1].copy()]


def trained(side, kind, optimizer="adam"):
    model = MODELS[kind](SIDES[side], optimizer)
    x, y = data()
    model.fit(inputs(kind, x), y, epochs=2, batch_size=8, verbose=0)
    return model


# --- .weights.h5 ------------------------------------------------------------------------------------------------------


def save(side, model, path):
    if side == "keras":
        model.save_weights(path)
    else:
        save_weights(model, path)


def load(side, model, path, **kwargs):
    if side == "keras":
        model.load_weights(path, **kwargs)
    else:
        load_weights(model, path, **kwargs)


# The state lies beside the model: the graph needs one optimizer.
@pytest.mark.parametrize(("kind", "optimizer"), [*(("chain", name) for name in OPTIMIZERS), ("graph", "adam")])
@pytest.mark.parametrize("side", SIDES)
def test_weights_and_optimizer_cross_over(tmp_path, side, optimizer, kind):
    path = str(tmp_path / "m.weights.h5")
    model = trained(side, kind, optimizer)
    save(side, model, path)
    taker = trained(other(side), kind, optimizer)
    load(other(side), taker, path)
    equal(model, taker)
    assert int(taker.optimizer.iterations) == int(model.optimizer.iterations) == 6
    x, y = data()
    for m in (model, taker):
        for layer in m.layers:
            if isinstance(layer, (fanin.layers.Dropout, keras.layers.Dropout)):
                layer.rate = 0.0
        m.fit(inputs(kind, x), y, epochs=1, batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(values(model), values(taker), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "mixed_bfloat16"])
@pytest.mark.parametrize("side", SIDES)
def test_dtypes_cross_over(tmp_path, side, dtype):
    path = str(tmp_path / "m.weights.h5")
    model, taker = chain(SIDES[side], dtype=dtype), chain(SIDES[other(side)], dtype=dtype)
    save(side, model, path)
    load(other(side), taker, path)
    for a, b in zip(values(model), values(taker), strict=True):
        np.testing.assert_array_equal(a.astype("f8"), b.astype("f8"))


@pytest.mark.parametrize("kind", MODELS)
def test_the_layout_is_that_of_keras(tmp_path, kind):
    def layout(path):
        found = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, obj: found.update(
                    {name: (getattr(obj, "shape", None), str(getattr(obj, "dtype", "")), dict(obj.attrs))}
                )
            )
        return found

    found = {}
    for side in SIDES:
        keras.utils.clear_session(free_memory=False)
        fanin.config.clear_session(free_memory=False)
        save(side, trained(side, kind), str(tmp_path / f"{side}.weights.h5"))
        found[side] = layout(tmp_path / f"{side}.weights.h5")
    assert found["fanin"] == found["keras"]


@pytest.mark.parametrize("side", SIDES)
def test_a_subclass_crosses_over(tmp_path, side):
    def make(lib):
        class Own(lib.Model):
            def __init__(self):
                super().__init__()
                self.head = lib.layers.Dense(2)
                self.body = [lib.layers.Dense(4), lib.layers.Dense(4)]
                self.alone = lib.layers.BatchNormalization()

            def call(self, x):
                for layer in self.body:
                    x = layer(x)
                return self.head(self.alone(x))

        model = Own()
        if lib is fanin:
            model.body = fanin.layers.base.layer.nn.ModuleList(model.body)
        model(lib_ones(lib))
        return model

    path = str(tmp_path / "m.weights.h5")
    model, taker = make(SIDES[side]), make(SIDES[other(side)])
    save(side, model, path)
    load(other(side), taker, path)
    for name in ("head", "alone"):
        equal(getattr(model, name), getattr(taker, name))
    for a, b in zip(model.body, taker.body, strict=True):
        equal(a, b)


def lib_ones(lib):
    ones = np.ones((2, 3), "f4")
    return keras.ops.convert_to_tensor(ones) if lib is keras else fanin.layers.base.convert.as_tensor(ones)


@pytest.mark.parametrize("side", SIDES)
def test_skip_mismatch_takes_the_same_layers(tmp_path, side):
    """Layer 2 has another width: its kernel and bias, and the kernel of layer 3, do not fit."""

    def make(lib, width):
        return lib.Sequential([lib.Input((3,)), *(lib.layers.Dense(units) for units in (4, width, 2))])

    path = str(tmp_path / "m.weights.h5")
    model = make(SIDES[side], 5)
    save(side, model, path)
    results = {}
    for taker_side, lib in SIDES.items():
        taker = make(lib, 6)
        for index, layer in enumerate(taker.layers):
            layer.set_weights([np.full(w.shape, index, "f4") for w in layer.get_weights()])
        with pytest.warns(UserWarning, match="could not|left out"):
            load(taker_side, taker, path, skip_mismatch=True)
        results[taker_side] = [w for layer in taker.layers[:2] for w in values(layer)]
    for a, b in zip(results["fanin"], results["keras"], strict=True):
        np.testing.assert_array_equal(a, b)


# --- the old .h5 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_whole_models_in_h5(tmp_path, optimizer, kind):
    path = str(tmp_path / "m.h5")
    model = trained("keras", kind, optimizer)
    model.save(path)
    loaded = load_model(path)
    equal(model, loaded)
    x, y = data()
    given = inputs(kind, x)
    wanted = model.predict(given, verbose=0)
    np.testing.assert_allclose(loaded.predict(given, verbose=0), wanted, rtol=1e-5, atol=1e-6)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    assert int(loaded.optimizer.iterations) == 6
    found = [np.asarray(v) for v in loaded.optimizer.get_state(loaded.trainable_variables)]
    for a, b in zip(model.optimizer.variables, found, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), b)
    one, two = (m.evaluate(given, y, verbose=0, return_dict=True) for m in (model, loaded))
    assert one.keys() == two.keys()
    for key, value in one.items():
        np.testing.assert_allclose(value, two[key], rtol=1e-5)


@pytest.mark.parametrize("frozen", [["first"], ["inside"], ["first", "inside", "batch_normalization"], "all"])
def test_frozen_layers_keep_their_order(tmp_path, frozen):
    keras.utils.clear_session(free_memory=False)
    model = chain(keras, "adam")
    for layer in model.layers:
        if frozen == "all" or layer.name in frozen:
            layer.trainable = False
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(1, 2, w.shape) for w in model.get_weights()])
    model.save(str(tmp_path / "m.h5"))
    loaded = load_model(tmp_path / "m.h5")
    equal(model, loaded)
    assert len(loaded.trainable_weights) == len(model.trainable_weights)


def test_weights_out_of_h5(tmp_path):
    model = trained("keras", "chain")
    model.save(str(tmp_path / "m.h5"))
    taker = chain(fanin)
    load_weights(taker, tmp_path / "m.h5")
    equal(model, taker)
    model.save(str(tmp_path / "m.h5"), include_optimizer=False)
    assert load_model(tmp_path / "m.h5").__dict__.get("_compiled_with") is None


def test_by_name_takes_the_same_layers(tmp_path):
    model = trained("keras", "chain")
    model.save(str(tmp_path / "m.h5"))
    results = []
    for side, lib in SIDES.items():
        names = ("first", "second")
        taker = lib.Sequential([lib.Input((3,)), *(lib.layers.Dense(5, name=name) for name in names)])
        taker.set_weights([np.full(w.shape, 7, "f4") for w in taker.get_weights()])
        load(side, taker, str(tmp_path / "m.h5"), by_name=True)
        results.append(values(taker))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(results[0][0], values(model)[0])


units = st.integers(1, 4)
layers = st.one_of(
    st.tuples(st.just("Dense"), st.fixed_dictionaries({
        "units": units,
        "activation": st.sampled_from([None, "relu", "gelu", "softmax", "hard_sigmoid", "elu"]),
        "use_bias": st.booleans(),
        "kernel_initializer": st.sampled_from(["he_normal", "ones", "orthogonal"]),
        "kernel_constraint": st.sampled_from([None, "non_neg", "max_norm"]),
        "activity_regularizer": st.sampled_from([None, "l1"]),
        "trainable": st.booleans(),
    })),
    st.tuples(st.just("BatchNormalization"), st.fixed_dictionaries({"momentum": st.sampled_from([0.5, 0.9]),
                                                                    "scale": st.booleans(), "center": st.booleans()})),
    st.tuples(st.just("LayerNormalization"), st.just({})),
    st.tuples(st.just("PReLU"), st.just({})),
    st.tuples(st.just("LeakyReLU"), st.fixed_dictionaries({"negative_slope": st.sampled_from([0.1, 0.5])})),
    st.tuples(st.just("Activation"), st.just({"activation": "tanh"})),
    st.tuples(st.just("Dropout"), st.just({"rate": 0.5})),
)  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=40, phases=[Phase.generate])
@given(st.lists(layers, min_size=1, max_size=5), st.integers(0, 9), st.sampled_from(["h5", "weights.h5"]))
def test_random_models_of_keras_are_read(tmp_path_factory, described, seed, ending):
    path = str(tmp_path_factory.mktemp("r") / f"m.{ending}")
    generator = np.random.default_rng(seed)

    def make(lib):
        return lib.Sequential([lib.Input((3,)), *(getattr(lib.layers, kind)(**given) for kind, given in described)])

    model = make(keras)
    model.set_weights([generator.uniform(0.5, 2, w.shape) for w in model.get_weights()])
    if ending == "h5":
        model.save(path)
        loaded = load_model(path)
    else:
        model.save_weights(path)
        loaded = make(fanin)
        load_weights(loaded, path)
    equal(model, loaded)
    x, _ = data()
    wanted = model.predict(x, verbose=0)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), wanted, rtol=1e-4, atol=1e-5)
    if ending == "h5":
        assert [w.requires_grad for w in loaded.weights] == [bool(v.trainable) for v in model.weights]
