"""The `.h5` of Keras 1 and 2: files in its documented layout, written here with h5py, against numpy.

What real Keras 3 writes in this format is compared in tests/parity/test_weights.py.
"""

import itertools
import json

import h5py
import numpy as np
import pytest
import torch

import fanin
from fanin.errors import CorruptError, FormatError, MismatchError, UnsafeError, VersionError
from fanin.layers import Dense
from fanin.saving import load_model, load_weights, register_keras_serializable

LIMIT = 64512  # bytes that one attribute may have


def save_names(group, name, names):
    """As Keras 2: one attribute of fixed-length strings, or several where that would be too long."""
    data = np.asarray([n.encode() for n in names])
    parts = 1
    while any(part.nbytes > LIMIT for part in np.array_split(data, parts)):
        parts += 1
    if parts == 1:
        group.attrs[name] = data
    for number, part in enumerate(np.array_split(data, parts) if parts > 1 else []):
        group.attrs[f"{name}{number}"] = part


def save_group(group, weights):
    save_names(group, "weight_names", [name for name, _ in weights])
    for name, value in weights:
        dataset = group.create_dataset(name, value.shape, dtype=value.dtype)
        dataset[()] = value


def write(path, weights, config=None, training=None, optimizer=None, version="2.9.0"):
    """`weights`: layer name -> [(weight name, array)]; `optimizer`: [(name, array)]."""
    with h5py.File(path, "w") as file:
        group = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
            group = file.create_group("model_weights")
        if training is not None:
            file.attrs["training_config"] = json.dumps(training).encode()
        for place in {file, group}:
            place.attrs["keras_version"] = version.encode()
            place.attrs["backend"] = b"tensorflow"
        save_names(group, "layer_names", list(weights))
        for name, values in weights.items():
            save_group(group.create_group(name), values)
        if optimizer is not None:
            save_group(file.create_group("optimizer_weights"), optimizer)


def initializer(name, **config):
    return {"class_name": name, "config": config}


def dense(name, units, activation="linear", **config):
    """A Dense layer's config as tf.keras 1.14 wrote it."""
    own = {
        "name": name,
        "trainable": True,
        "dtype": "float32",
        "units": units,
        "activation": activation,
        "use_bias": True,
        "kernel_initializer": initializer(
            "VarianceScaling", scale=1.0, mode="fan_avg", distribution="uniform", seed=None, dtype="float32"
        ),
        "bias_initializer": initializer("Zeros", dtype="float32"),
        "kernel_regularizer": {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.01}},
        "bias_regularizer": None,
        "activity_regularizer": None,
        "kernel_constraint": {"class_name": "MaxNorm", "config": {"max_value": 9, "axis": 0}},
        "bias_constraint": None,
    }
    return {"class_name": "Dense", "config": {**own, **config}}


def values(*sizes, seed=0):
    """Kernel and bias of a chain of Dense layers."""
    generator = np.random.default_rng(seed)
    return [
        (generator.normal(size=pair).astype("f4"), generator.normal(size=pair[1]).astype("f4"))
        for pair in itertools.pairwise(sizes)
    ]


def chain(arrays, prefix="dense"):
    """Layer name -> weights, with Keras 2's names."""
    return {
        f"{prefix}_{i}": [(f"{prefix}_{i}/kernel:0", kernel), (f"{prefix}_{i}/bias:0", bias)]
        for i, (kernel, bias) in enumerate(arrays, 1)
    }


def forward(x, arrays, activations=("relu", "linear")):
    for (kernel, bias), activation in zip(arrays, activations, strict=True):
        x = x @ kernel + bias
        x = np.maximum(x, 0) if activation == "relu" else x
    return x


X = np.random.default_rng(3).normal(size=(6, 3)).astype("f4")


def sequential(**first):
    layers = [dense("dense_1", 4, "relu", batch_input_shape=[None, 3], **first), dense("dense_2", 2)]
    return {"class_name": "Sequential", "config": {"name": "sequential_7", "layers": layers}}


# --- whole models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2.2", "2.0.8", "2.2.4-tf", "2.9.0", "2.15.0"])
@pytest.mark.parametrize("form", ["dict", "list", "input layer"])
def test_a_sequential_of_keras_2(tmp_path, form, version):
    arrays, config = values(3, 4, 2), sequential()
    if form == "list":  # up to 2.2.2
        config["config"] = config["config"]["layers"]
    if form == "input layer":
        entry = {"batch_input_shape": [None, 3], "dtype": "float32", "sparse": False, "ragged": False, "name": "in"}
        config["config"]["layers"].insert(0, {"class_name": "InputLayer", "config": entry})
        del config["config"]["layers"][1]["config"]["batch_input_shape"]
    write(tmp_path / "m.h5", chain(arrays), config, version=version)
    model = load_model(tmp_path / "m.h5")
    np.testing.assert_allclose(model.predict(X, verbose=0), forward(X, arrays), rtol=1e-5, atol=1e-6)
    assert [layer.name for layer in model.layers] == ["dense_1", "dense_2"]
    first = model.layers[0].get_config()
    assert first["kernel_regularizer"]["config"] == {"l1": 0.0, "l2": 0.01}
    assert first["kernel_constraint"]["config"] == {"max_value": 9, "axis": 0}
    assert first["kernel_initializer"]["class_name"] == "VarianceScaling"
    assert model.layers[0].dtype_policy.name == "float32"
    model.save(tmp_path / "m.keras")  # the way out of the old format
    again = load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))


def test_a_functional_model_of_keras_2(tmp_path):
    """Two inputs, a layer used twice, a nested model; `inbound_nodes` as lists."""
    (k1, b1), (k2, b2), (k3, b3) = values(3, 4, 4, 2)

    def entry(name):
        config = {"batch_input_shape": [None, 3], "dtype": "float32", "sparse": False, "name": name}
        return {"class_name": "InputLayer", "config": config, "name": name, "inbound_nodes": []}

    deep = {"name": "inner", "layers": [dense("deep", 4, "relu", batch_input_shape=[None, 4])]}
    inner = {"class_name": "Sequential", "name": "inner", "inbound_nodes": [[["add_1", 0, 0, {}]]], "config": deep}
    layers = [
        entry("a"),
        entry("b"),
        {**dense("shared", 4), "name": "shared", "inbound_nodes": [[["a", 0, 0, {}]], [["b", 0, 0, {}]]]},
        {"class_name": "Add", "config": {"name": "add_1", "trainable": True}, "name": "add_1",
         "inbound_nodes": [[["shared", 0, 0, {}], ["shared", 1, 0, {}]]]},
        inner,
        {**dense("out", 2), "name": "out", "inbound_nodes": [[["inner", 1, 0, {}]]]},
    ]  # fmt: skip
    graph = {"name": "model_1", "layers": layers, "input_layers": [["a", 0, 0], ["b", 0, 0]],
             "output_layers": [["out", 0, 0]]}  # fmt: skip
    weights = {
        "a": [],
        "b": [],
        "shared": [("shared/kernel:0", k1), ("shared/bias:0", b1)],
        "add_1": [],
        "inner": [("deep/kernel:0", k2), ("deep/bias:0", b2)],
        "out": [("out/kernel:0", k3), ("out/bias:0", b3)],
    }
    for kind in ("Model", "Functional"):
        write(tmp_path / "m.h5", weights, {"class_name": kind, "config": graph})
        model = load_model(tmp_path / "m.h5")
        y = X[::-1].copy()
        wanted = np.maximum((X @ k1 + b1 + y @ k1 + b1) @ k2 + b2, 0) @ k3 + b3
        np.testing.assert_allclose(model.predict([X, y], verbose=0), wanted, rtol=1e-4, atol=1e-5)


def test_batch_normalization_keeps_its_order(tmp_path):
    """gamma and beta train, the moving statistics come behind; all behind if the layer is frozen."""
    gamma, beta, mean, variance = (np.full(3, v, "f4") for v in (2.0, 3.0, 5.0, 7.0))
    config = {
        "name": "norm",
        "trainable": True,
        "dtype": "float32",
        "axis": [1],
        "momentum": 0.9,
        "epsilon": 0.001,
        "center": True,
        "scale": True,
        "batch_input_shape": [None, 3],
        "beta_initializer": initializer("Zeros"),
        "gamma_initializer": initializer("Ones"),
        "moving_mean_initializer": initializer("Zeros"),
        "moving_variance_initializer": initializer("Ones"),
        "beta_regularizer": None,
        "gamma_regularizer": None,
        "beta_constraint": None,
        "gamma_constraint": None,
    }
    names = ["norm/gamma:0", "norm/beta:0", "norm/moving_mean:0", "norm/moving_variance:0"]
    for trainable in (True, False):
        layers = [{"class_name": "BatchNormalization", "config": {**config, "trainable": trainable}}]
        weights = {"norm": list(zip(names, (gamma, beta, mean, variance), strict=True))}
        write(tmp_path / "m.h5", weights, {"class_name": "Sequential", "config": {"name": "s", "layers": layers}})
        model = load_model(tmp_path / "m.h5")
        wanted = (X - 5) / np.sqrt(7.001) * 2 + 3
        np.testing.assert_allclose(model.predict(X, verbose=0), wanted, rtol=1e-5, atol=1e-5)


def test_old_spellings(tmp_path):
    arrays = values(3, 4, 4, 2)
    layers = [
        dense("dense_1", 4, "linear", batch_input_shape=[None, 3]),
        {"class_name": "LeakyReLU", "config": {"name": "leaky", "trainable": True, "alpha": 0.5}},
        {"class_name": "Dropout", "config": {"name": "drop", "rate": 0.5, "noise_shape": None, "seed": None}},
        dense("dense_2", 4, {"class_name": "LeakyReLU", "config": {"name": "l", "alpha": 0.25}}),
        {"class_name": "Activation", "config": {"name": "act", "trainable": True, "activation": "relu"}},
        dense("dense_3", 2, dtype={"class_name": "Policy", "config": {"name": "float32"}},
              kernel_initializer={"class_name": "glorot_uniform", "config": {"seed": 3}}),
    ]  # fmt: skip
    write(tmp_path / "m.h5", {**chain(arrays)}, {"class_name": "Sequential", "config": {"name": "s", "layers": layers}})
    model = load_model(tmp_path / "m.h5")
    (k1, b1), (k2, b2), (k3, b3) = arrays
    hidden = X @ k1 + b1
    hidden = np.where(hidden > 0, hidden, 0.5 * hidden) @ k2 + b2
    hidden = np.maximum(np.where(hidden > 0, hidden, 0.25 * hidden), 0)
    np.testing.assert_allclose(model.predict(X, verbose=0), hidden @ k3 + b3, rtol=1e-4, atol=1e-5)


def test_what_computes_other_numbers_than_in_keras_2_is_said(tmp_path):
    config = sequential()
    config["config"]["layers"][1]["config"]["activation"] = "hard_sigmoid"
    write(tmp_path / "m.h5", chain(values(3, 4, 2)), config)
    with pytest.warns(UserWarning, match=r"'hard_sigmoid' of layer 'dense_2' was clip\(0.2 x") as caught:
        load_model(tmp_path / "m.h5")
    assert caught[0].filename == __file__
    write(tmp_path / "m.h5", chain(values(3, 4, 2)), config, version="3.15.1")
    load_model(tmp_path / "m.h5")  # Keras 3 meant the same


@register_keras_serializable("legacy", "Twice")
class Twice(fanin.Layer):
    def call(self, x):
        return 2 * x


def test_own_classes_by_registered_name_and_by_custom_objects(tmp_path):
    class Thrice(fanin.Layer):
        def call(self, x):
            return 3 * x

    arrays, config = values(3, 4, 2), sequential()
    config["config"]["layers"] += [
        {"class_name": "legacy>Twice", "config": {"name": "twice"}},
        {"class_name": "Thrice", "config": {"name": "thrice"}},
    ]
    write(tmp_path / "m.h5", chain(arrays), config)
    model = load_model(tmp_path / "m.h5", custom_objects={"Thrice": Thrice})
    np.testing.assert_allclose(model.predict(X, verbose=0), 6 * forward(X, arrays), rtol=1e-4, atol=1e-5)
    with pytest.raises(MismatchError, match="'Thrice'"):
        load_model(tmp_path / "m.h5")


def test_a_keras_file_of_keras_2_is_hdf5(tmp_path):
    """Keras 2 up to 2.11 wrote HDF5 under the ending `.keras` too: the content counts."""
    arrays = values(3, 4, 2)
    write(tmp_path / "m.keras", chain(arrays), sequential())
    model = load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(model.predict(X, verbose=0), forward(X, arrays), rtol=1e-5, atol=1e-6)
    load_weights(model, tmp_path / "m.keras")


# --- compile information ----------------------------------------------------------------------------------------------


def training(optimizer, config, **others):
    described = {"class_name": optimizer, "config": config}
    return {"optimizer_config": described, "loss": "mse", "metrics": ["mae"], "weighted_metrics": None,
            "sample_weight_mode": None, "loss_weights": None, **others}  # fmt: skip


ADAM = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-07, "amsgrad": False}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("Adam", {"lr": 0.25, "decay": 0.0, **ADAM}),
        ("Adam", {"name": "Adam", "learning_rate": 0.25, "decay": 0.0, **ADAM, "epsilon": None}),
        ("Custom>Adam", {"name": "Adam", "learning_rate": 0.25, "weight_decay": None, "clipnorm": None,
                         "global_clipnorm": None, "clipvalue": None, "use_ema": False, "ema_momentum": 0.99,
                         "ema_overwrite_frequency": None, "jit_compile": False, "is_legacy_optimizer": False, **ADAM}),
        ("SGD", {"lr": 0.25, "momentum": 0.5, "decay": 0.0, "nesterov": True}),
        ("RMSprop", {"lr": 0.25, "rho": 0.9, "decay": 0.0, "epsilon": 1e-7}),
        ("rmsprop", {"learning_rate": 0.25, "rho": 0.9, "momentum": 0.5, "epsilon": 1e-7, "centered": True}),
    ],
)  # fmt: skip
def test_optimizers_of_keras_2(tmp_path, name, config):
    write(tmp_path / "m.h5", chain(values(3, 4, 2)), sequential(), training(name, config))
    model = load_model(tmp_path / "m.h5")
    assert type(model.optimizer).__name__.lower() == name.lower().removeprefix("custom>")
    assert model.optimizer.learning_rate == 0.25
    assert model.optimizer.get_config().get("momentum", 0.5) == config.get("momentum", 0.0 if "rho" in config else 0.5)
    assert model.loss == "mse"
    assert set(model.evaluate(X, X[:, :2], verbose=0, return_dict=True)) == {"loss", "mae"}
    assert load_model(tmp_path / "m.h5", compile=False).__dict__.get("_compiled_with") is None


def test_decay_is_not_dropped_in_silence(tmp_path):
    how = training("SGD", {"lr": 0.25, "momentum": 0.0, "decay": 1e-3, "nesterov": False})
    write(tmp_path / "m.h5", chain(values(3, 4, 2)), sequential(), how)
    with pytest.warns(UserWarning, match=r"decay=0.001 is left out"):
        load_model(tmp_path / "m.h5")


@pytest.mark.parametrize(
    ("loss", "metrics", "names"),
    [
        ("sparse_categorical_crossentropy", ["accuracy"], ["accuracy"]),
        (
            {"class_name": "SparseCategoricalCrossentropy",
             "config": {"reduction": "auto", "name": "s", "from_logits": True}},
            [[{"class_name": "MeanMetricWrapper",
               "config": {"name": "accuracy", "dtype": "float32", "fn": "sparse_categorical_accuracy"}}]],
            ["accuracy"],
        ),
        (
            {"class_name": "SparseCategoricalCrossentropy",
             "config": {"reduction": "sum", "name": "s", "from_logits": True, "fn": "x"}},
            [{"class_name": "MeanMetricWrapper", "config": {"name": "mine", "fn": "sparse_categorical_accuracy"}},
             {"class_name": "SparseCategoricalAccuracy", "config": {"name": "sca", "dtype": "float32"}}],
            ["sparse_categorical_accuracy", "sca"],
        ),
        ("sparse_categorical_crossentropy", None, []),
    ],
)  # fmt: skip
def test_losses_and_metrics_of_keras_2(tmp_path, loss, metrics, names):
    how = training("SGD", {"lr": 0.25}, loss=loss, metrics=metrics)
    config = sequential()
    config["config"]["layers"][1]["config"]["activation"] = "softmax"
    write(tmp_path / "m.h5", chain(values(3, 4, 2)), config, how)
    model = load_model(tmp_path / "m.h5")
    y = np.array([0, 1, 0, 1, 1, 0])
    logs = model.evaluate(X, y, verbose=0, return_dict=True)
    assert list(logs) == ["loss", *names]
    for name in names:
        assert logs[name] == pytest.approx(np.mean(model.predict(X, verbose=0).argmax(-1) == y))


def slots(names, arrays, start=10.0):
    """One array for each name and weight, all different, name by name."""
    found = []
    for name in names:
        for i, pair in enumerate(arrays, 1):
            for what, weight in zip(("kernel", "bias"), pair, strict=True):
                start += 1
                found.append((f"training/Adam/dense_{i}/{what}/{name}:0", np.full_like(weight, start)))
    return found


@pytest.mark.parametrize("counter", ["Adam/iter:0", "training/Adam/iterations:0"])
def test_optimizer_state_of_keras_2(tmp_path, counter):
    """Up to 2.10: the counter, then all first moments, then all second ones."""
    arrays = values(3, 4, 2)
    state = [(counter, np.int64(7)), *slots(["m", "v"], arrays)]
    state = [(name, np.asarray(value)) for name, value in state]
    write(tmp_path / "m.h5", chain(arrays), sequential(), training("Adam", {"lr": 0.25, **ADAM}), state)
    model = load_model(tmp_path / "m.h5")
    found = model.optimizer.state_tensors(model.trainable_variables)
    assert int(found[0]) == model.optimizer.iterations == 7
    assert float(found[1]) == 0.25
    assert [float(v.flatten()[0]) for v in found[2:]] == [11, 15, 12, 16, 13, 17, 14, 18]  # weight by weight


def test_optimizer_state_since_2_11(tmp_path):
    arrays = values(3, 4, 2)
    flat = [weight for pair in arrays for weight in pair]
    state = [("iteration:0", np.asarray(np.int64(7))), ("Adam/learning_rate:0", np.asarray(np.float32(0.5)))]
    for number, weight in enumerate(flat):
        state += [(f"Adam/m/{number}:0", np.full_like(weight, number)), (f"Adam/v/{number}:0", np.full_like(weight, 9))]
    write(tmp_path / "m.h5", chain(arrays), sequential(), training("Adam", {"learning_rate": 0.25, **ADAM}), state)
    model = load_model(tmp_path / "m.h5")
    found = model.optimizer.state_tensors(model.trainable_variables)
    assert [float(v.flatten()[0]) for v in found] == [7, 0.5, 0, 9, 1, 9, 2, 9, 3, 9]


def test_optimizer_state_that_does_not_fit_is_left_out(tmp_path):
    arrays = values(3, 4, 2)
    state = [("Adam/iter:0", np.asarray(np.int64(7))), *slots(["m", "v"], arrays)][:-1]
    write(tmp_path / "m.h5", chain(arrays), sequential(), training("Adam", {"lr": 0.25, **ADAM}), state)
    with pytest.warns(UserWarning, match="is left out: the file has 8 variables"):
        model = load_model(tmp_path / "m.h5")
    assert model.optimizer.iterations == 0
    np.testing.assert_allclose(model.predict(X, verbose=0), forward(X, arrays), rtol=1e-5, atol=1e-6)


# --- weights alone ----------------------------------------------------------------------------------------------------


def own(sizes=(3, 4, 2), names=("dense_1", "dense_2")):
    pairs = zip(sizes[1:], names, strict=True)
    return fanin.Sequential([fanin.Input((sizes[0],)), *(Dense(units, name=name) for units, name in pairs)])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("ending", ["m.h5", "m.hdf5", "m.weights.h5"])
def test_weights_by_order(tmp_path, whole, ending):
    arrays = values(3, 4, 2)
    write(tmp_path / ending, {**chain(arrays, "other"), "drop": []}, sequential() if whole else None)
    model = own()
    load_weights(model, tmp_path / ending)
    for found, wanted in zip(model.get_weights(), [w for pair in arrays for w in pair], strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_weights_by_name(tmp_path):
    arrays = values(3, 4, 2)
    weights = chain(arrays)
    write(tmp_path / "w.h5", {"dense_2": weights["dense_2"], "other": [("o:0", np.ones(9, "f4"))]})
    model = own()
    before = model.layers[0].kernel.detach().clone()
    load_weights(model, tmp_path / "w.h5", by_name=True)
    np.testing.assert_array_equal(model.layers[1].kernel.detach(), arrays[1][0])
    assert torch.equal(model.layers[0].kernel, before)
    with pytest.raises(MismatchError, match="other holds 1 weights"):
        load_weights(model, tmp_path / "w.h5")


def test_weights_of_the_model_itself(tmp_path):
    class Scaled(fanin.Model):
        def __init__(self):
            super().__init__()
            self.inner = Dense(2, name="inner")
            self.scale = torch.nn.Parameter(torch.ones(3))

        def call(self, x):
            return self.inner(x * self.scale)

    [(kernel, bias)] = values(3, 2)
    weights = {"inner": [("k:0", kernel), ("b:0", bias)]}
    write(tmp_path / "w.h5", weights)
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        save_group(file.create_group("top_level_model_weights"), [("scale:0", np.full(3, 2, "f4"))])
    model = Scaled()
    model(torch.ones(2, 3))
    load_weights(model, tmp_path / "w.h5")
    np.testing.assert_allclose(model(torch.tensor(X)).detach(), 2 * X @ kernel + bias, rtol=1e-4, atol=1e-5)
    write(tmp_path / "w.h5", weights)
    with pytest.raises(MismatchError, match="the model itself has 1"):
        load_weights(model, tmp_path / "w.h5")


def test_long_lists_of_names_are_put_together(tmp_path):
    """60 layers whose names take 4 kB each, and a layer with 40 weights of such names."""
    names = [f"layer_{i}_" + "x" * 4000 for i in range(60)]
    generator = np.random.default_rng(0)
    arrays = [generator.normal(size=(2, 2)).astype("f4") for _ in names]
    weights = {name: [(f"{name}/kernel:0", array)] for name, array in zip(names, arrays, strict=True)}
    write(tmp_path / "w.h5", weights)
    with h5py.File(tmp_path / "w.h5") as file:
        assert "layer_names" not in file.attrs
        assert "layer_names1" in file.attrs
    model = fanin.Sequential([fanin.Input((2,)), *(Dense(2, use_bias=False) for _ in names)])
    load_weights(model, tmp_path / "w.h5")
    for found, wanted in zip(model.get_weights(), arrays, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_layer_names_with_slashes_and_letters_of_all_kinds(tmp_path):
    """More than eight names, one of them outside ASCII: HDF5 stores such groups in another form."""
    names = ["block/one", "block/two", "größe", *(f"dense_{i}" for i in range(9))]
    arrays = [np.full((2, 2), i, "f4") for i in range(len(names))]
    write(tmp_path / "w.h5", {name: [(f"{name}/k:0", a)] for name, a in zip(names, arrays, strict=True)})
    model = fanin.Sequential([fanin.Input((2,)), *(Dense(2, use_bias=False) for _ in names)])
    load_weights(model, tmp_path / "w.h5")
    assert [w[0, 0] for w in model.get_weights()] == list(range(len(names)))


def test_all_mismatches_at_once_and_nothing_changes(tmp_path):
    write(tmp_path / "w.h5", chain(values(3, 5, 4, 2)))
    model = own((3, 4, 4, 1), ("dense_1", "dense_2", "dense_3"))
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(MismatchError) as caught:
        load_weights(model, tmp_path / "w.h5")
    for text in ("(3, 5)", "(3, 4)", "(5,)", "(5, 4)", "(4, 2)", "(4, 1)", "dense_3/dense_3/kernel:0"):
        assert text in str(caught.value)
    for by_name in (False, True):
        with pytest.warns(UserWarning, match="left out"):
            load_weights(model, tmp_path / "w.h5", skip_mismatch=True, by_name=by_name)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_file_of_weights_is_no_model(tmp_path):
    write(tmp_path / "w.h5", chain(values(3, 4, 2)))
    with pytest.raises(MismatchError, match="use load_weights"):
        load_model(tmp_path / "w.h5")


def test_a_newer_keras(tmp_path):
    write(tmp_path / "m.h5", chain(values(3, 4, 2)), sequential(), version="4.0.0")
    with pytest.raises(VersionError, match=r"4.0.0"):
        load_model(tmp_path / "m.h5")


def test_all_unknown_classes_are_listed_at_once_with_their_places(tmp_path):
    inner = {"class_name": "Sequential", "config": {"name": "i", "layers": [{"class_name": "Conv9D", "config": {}}]}}
    config = sequential(kernel_initializer=initializer("Magic"))
    config["config"]["layers"][0]["config"]["activation"] = {"class_name": "Fancy", "config": {}}
    config["config"]["layers"] += [inner, {"class_name": "Mine>Layer", "config": {}}]
    how = training(
        "Wonder", {}, loss={"class_name": "Pain", "config": {}}, metrics=[{"class_name": "Joy", "config": {}}]
    )
    write(tmp_path / "m.h5", chain(values(3, 4, 2)), config, how)
    with pytest.raises(MismatchError) as caught:
        load_model(tmp_path / "m.h5")
    message = str(caught.value)
    for name, place in {
        "Conv9D": "model_config.config.layers[2].config.layers[0]",
        "Magic": "model_config.config.layers[0].config.kernel_initializer",
        "Fancy": "model_config.config.layers[0].config.activation",
        "Mine>Layer": "model_config.config.layers[3]",
        "Wonder": "training_config.optimizer",
        "Pain": "training_config.loss",
        "Joy": "training_config.metrics[0]",
    }.items():
        assert f"{name!r}" in message, name
        assert f"at {place}" in message, place


def test_code_is_refused(tmp_path):
    config = sequential()
    code = {"name": "l", "function": ["gASV", None, None], "function_type": "lambda"}
    config["config"]["layers"].append({"class_name": "Lambda", "config": code})
    write(tmp_path / "m.h5", chain(values(3, 4, 2)), config)
    with pytest.raises(UnsafeError, match="Lambda"):
        load_model(tmp_path / "m.h5")


@pytest.mark.parametrize("config", [[], "x", {}, {"class_name": "Sequential"}, {"class_name": 3, "config": {}}, None,
                                    {"class_name": "Dense", "config": {"units": 2}}])  # fmt: skip
def test_configs_that_are_none(tmp_path, config):
    write(tmp_path / "m.h5", chain(values(3, 4, 2)), config if config is not None else "null")
    with pytest.raises(FormatError, match=r"m\.h5"):
        load_model(tmp_path / "m.h5")


def test_names_that_do_not_fit_the_groups(tmp_path):
    write(tmp_path / "w.h5", chain(values(3, 4, 2)))
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        file.attrs["layer_names"] = ["dense_1", "gone"]
    with pytest.raises(MismatchError, match="gone is missing"):
        load_weights(own(), tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        file.attrs["layer_names"] = ["dense_1", "dense_1"]
    with pytest.raises(CorruptError, match="twice"):
        load_weights(own(), tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        file.attrs["layer_names"] = ["dense_1", "dense_2"]
        file["dense_1"].attrs["weight_names"] = ["dense_1/kernel:0", "dense_1/gone:0"]
    with pytest.raises(MismatchError, match="dense_1/dense_1/gone:0 is missing"):
        load_weights(own(), tmp_path / "w.h5")
    write(tmp_path / "m.h5", {}, sequential())
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        del file["model_weights"].attrs["layer_names"]
    with pytest.raises(MismatchError, match="which layers"):
        load_weights(own(), tmp_path / "m.h5")


def test_a_module_without_layers(tmp_path):
    write(tmp_path / "w.h5", chain(values(3, 4, 2)))
    with pytest.raises(MismatchError, match="no `layers`"):
        load_weights(torch.nn.Linear(3, 4), tmp_path / "w.h5")


def test_a_file_of_this_name_that_is_none_is_told_of_hdf5(tmp_path):
    path = tmp_path / "model.h5"
    path.write_text("no model at all")
    with pytest.raises(FormatError, match="HDF5") as caught:
        load_model(path)
    assert "zip" not in str(caught.value)
