"""Archives in both directions against real Keras 3.15.1 on its torch backend.

Weights are equal bit for bit, predictions within 1e-6, and training goes on within 1e-5 of an unbroken run on either
side: both run torch's float32 kernels, the optimizers' operations come in another order.
"""

import io
import json
import os
import zipfile

os.environ["KERAS_BACKEND"] = "torch"

import h5py
import keras
import numpy as np
import pytest

import fanin
from fanin.saving import load_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

OPTIMIZERS = {
    "sgd": ("SGD", {"learning_rate": 0.05}),
    "nesterov": ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {"learning_rate": 0.01}),
    "amsgrad": ("Adam", {"learning_rate": 0.01, "amsgrad": True, "clipnorm": 1.0}),
    "adamw": ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "rmsprop": ("RMSprop", {"learning_rate": 0.01}),
    "centered": ("RMSprop", {"learning_rate": 0.01, "momentum": 0.5, "centered": True}),
}
SIDES = {"fanin": (fanin, load_model), "keras": (keras, keras.saving.load_model)}


def data(rows=40):
    generator = np.random.default_rng(1)
    return generator.normal(size=(rows, 3)).astype("f4"), generator.normal(size=(rows, 2)).astype("f4")


def make(side, optimizer=None, dtype=None):
    """The same model by either library."""
    lib = SIDES[side][0]
    model = lib.Sequential(
        [
            lib.Input((3,)),
            lib.layers.Dense(
                5,
                activation="gelu",
                name="first",
                kernel_initializer=lib.initializers.VarianceScaling(0.5, "fan_out", "uniform", seed=3),
                kernel_regularizer=lib.regularizers.L1L2(0.001, 0.002),
                activity_regularizer="l2",
                kernel_constraint=lib.constraints.MaxNorm(3.0),
                dtype=dtype,
            ),
            lib.layers.Dense(4, "tanh", use_bias=False, bias_constraint="non_neg", dtype=dtype),
            lib.Sequential([lib.layers.Dense(4, "relu", dtype=dtype)], name="inside"),
            lib.layers.Dense(2, dtype=dtype),
        ]
    )
    if optimizer is not None:
        name, arguments = OPTIMIZERS[optimizer]
        model.compile(getattr(lib.optimizers, name)(**arguments), "mse", metrics=["mae"])
    return model


def values(model):
    return [np.asarray(keras.ops.convert_to_numpy(w), dtype="f8") for w in model.get_weights()]


def other(side):
    return "keras" if side == "fanin" else "fanin"


def layout(path):
    """Every group and dataset with shape, dtype and attributes."""
    found = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(
            lambda name, obj: found.update(
                {name: (getattr(obj, "shape", None), str(getattr(obj, "dtype", "")), dict(obj.attrs))}
            )
        )
    return found


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16", "float64", "bfloat16"])
@pytest.mark.parametrize("side", SIDES)
def test_the_other_side_reads_weights_and_predicts_equally(tmp_path, side, dtype):
    path = str(tmp_path / "m.keras")
    model = make(side, dtype=dtype)
    model.save(path)
    loaded = SIDES[other(side)][1](path)
    for a, b in zip(values(model), values(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    x, _ = data()
    tolerance = 1e-6 if dtype in (None, "float64") else 2e-2  # one or two of bfloat16's units in the last place
    ours, theirs = (np.asarray(m.predict(x, verbose=0), dtype="f8") for m in (model, loaded))
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]


def test_keras_reads_the_dtype_of_a_graph(tmp_path):
    x = fanin.Input((3,))
    model = fanin.Model(x, fanin.layers.Dense(2, dtype="mixed_float16")(x), dtype="mixed_float16")
    path = str(tmp_path / "m.keras")
    model.save(path)
    assert load_model(path).dtype_policy.name == "mixed_float16"
    theirs = keras.saving.load_model(path)
    for a, b in zip(values(model), values(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


# The dtype of the state does not depend on the rule: those with the most tensors stand for the others.
@pytest.mark.parametrize(
    ("optimizer", "dtype"), [*((name, None) for name in OPTIMIZERS), ("amsgrad", "bfloat16"), ("centered", "bfloat16")]
)
def test_the_layout_is_that_of_keras(tmp_path, optimizer, dtype):
    found = {}
    for side in SIDES:
        keras.utils.clear_session(free_memory=False)
        fanin.config.clear_session(free_memory=False)
        model = make(side, optimizer, dtype)
        model.fit(*data(), verbose=0)
        model.save(str(tmp_path / "m.keras"))
        found[side] = layout(tmp_path / "m.keras")
    assert found["fanin"] == found["keras"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("side", SIDES)
def test_the_other_side_goes_on_training(tmp_path, side, optimizer):
    x, y = data()
    path = str(tmp_path / "m.keras")
    model = make(side, optimizer)
    model.fit(x, y, epochs=2, batch_size=8, shuffle=False, verbose=0)
    model.save(path)
    loaded = SIDES[other(side)][1](path)
    assert int(loaded.optimizer.iterations) == 10
    logs = [m.fit(x, y, epochs=2, batch_size=8, shuffle=False, verbose=0).history for m in (model, loaded)]
    for a, b in zip(values(model), values(loaded), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert logs[0].keys() == logs[1].keys()
    for key in logs[0]:
        np.testing.assert_allclose(logs[0][key], logs[1][key], rtol=1e-5)


def test_there_and_back_again(tmp_path):
    """fanin -> Keras -> fanin -> Keras, training at each stop, against one unbroken run."""
    x, y = data()
    unbroken = make("fanin", "adam")
    path = str(tmp_path / "m.keras")
    unbroken.save(path)
    # Not stepped yet: Keras warns, as for its own files, that there is no state to read.
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        model = keras.saving.load_model(path)
    for side in ("fanin", "keras", "fanin"):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        model.save(path)
        model = SIDES[side][1](path)
    unbroken.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(values(unbroken), values(model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy", "BinaryCrossentropy", "Huber"])
@pytest.mark.parametrize("side", SIDES)
def test_losses_and_metrics_cross_over(tmp_path, side, loss):
    lib = SIDES[side][0]
    path = str(tmp_path / "m.keras")
    x, y = data()
    y = (y > 0).astype("f4")
    model = lib.Sequential([lib.Input((3,)), lib.layers.Dense(2, "sigmoid")])
    given = getattr(lib.losses, loss)() if loss[0].isupper() else loss
    metrics = ["accuracy", "mae", lib.metrics.AUC(num_thresholds=50, name="area"), lib.metrics.Precision(name="p")]
    model.compile("adam", given, metrics=metrics, weighted_metrics=["mse"])
    model.fit(x, y, verbose=0)
    model.save(path)
    loaded = SIDES[other(side)][1](path)
    ours, theirs = (m.evaluate(x, y, verbose=0, return_dict=True) for m in (model, loaded))
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5)


def test_only_trainable_weights_have_state_in_both(tmp_path):
    for side in SIDES:
        path = str(tmp_path / f"{side}.keras")
        model = make(side, "adam")
        model.layers[0].trainable = False
        model.fit(*data(), verbose=0)
        model.save(path)
        loaded = SIDES[other(side)][1](path)
        assert len(loaded.trainable_variables) == len(model.trainable_variables) == 5
        assert int(loaded.optimizer.iterations) == 2


def test_the_config_fits_older_releases(tmp_path):
    """What Keras 3.6 does not know is left out."""
    model = make("fanin", "adam")
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        config = archive.read("config.json").decode()
    for word in ("quantization_config", "input_axes", "output_axes", "keras.src", "optional"):
        assert word not in config
    assert json.loads(config)["compile_config"]["optimizer"]["module"] == "keras.optimizers"
