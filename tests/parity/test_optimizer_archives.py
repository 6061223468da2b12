"""Archives of compiled models with every optimizer, both ways with real Keras 3.15.1 on its torch backend.

What one side saved in the middle of training, within a round of accumulation too, the other loads and goes on with: the
same losses within 1e-5 and the same state, as both run float32 in another order.
"""

import json
import os
import zipfile

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import pytest

import fanin
from fanin.saving import load_model

SIDES = {"fanin": (fanin, load_model), "keras": (keras, keras.saving.load_model)}


def cosine(lib):
    return lib.optimizers.schedules.CosineDecay(0.0, 20, 0.1, warmup_target=0.05, warmup_steps=4)


def pieces(lib):
    return lib.optimizers.schedules.PiecewiseConstantDecay([3, 7], [0.05, 0.01, 0.002])


OPTIMIZERS = {
    "nadam": ("Nadam", {"learning_rate": 0.01}),
    "adamax": ("Adamax", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "adagrad": ("Adagrad", {"learning_rate": 0.05, "clipnorm": 0.5}),
    "adadelta": ("Adadelta", {"learning_rate": 1.0, "clipvalue": 0.1}),
    "lion": ("Lion", {"learning_rate": 0.001, "global_clipnorm": 0.5}),
    "sgd cosine": ("SGD", {"learning_rate": cosine, "momentum": 0.9}),
    "nadam pieces": ("Nadam", {"learning_rate": pieces}),
    "adam averaged": ("Adam", {"learning_rate": 0.01, "use_ema": True, "ema_momentum": 0.7}),
    "rmsprop overwritten": ("RMSprop", {"learning_rate": 0.01, "use_ema": True, "ema_overwrite_frequency": 3}),
    "sgd in rounds": ("SGD", {"learning_rate": 0.1, "gradient_accumulation_steps": 3}),
    "nadam everything": (
        "Nadam",
        {
            "learning_rate": cosine,
            "weight_decay": 0.01,
            "clipnorm": 1.0,
            "use_ema": True,
            "ema_momentum": 0.6,
            "ema_overwrite_frequency": 2,
            "gradient_accumulation_steps": 4,
        },
    ),
}
BOTH = pytest.mark.parametrize("side", SIDES)
EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def make(side, optimizer):
    lib = SIDES[side][0]
    name, arguments = OPTIMIZERS[optimizer]
    arguments = {key: value(lib) if callable(value) else value for key, value in arguments.items()}
    model = lib.Sequential(
        [
            lib.Input((3,)),
            lib.layers.Dense(
                5,
                "tanh",
                kernel_initializer=lib.initializers.GlorotUniform(seed=3),
                kernel_constraint=lib.constraints.MaxNorm(0.8),
            ),
            lib.layers.Dense(2, kernel_initializer=lib.initializers.GlorotUniform(seed=4), bias_constraint="non_neg"),
        ]
    )
    model.compile(getattr(lib.optimizers, name)(**arguments), "mse")
    return model


def fit(model, epochs):
    """The loss of each epoch; five batches an epoch."""
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(40, 3)).astype("f4"), generator.normal(size=(40, 2)).astype("f4")
    return model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def state(model):
    return [np.asarray(keras.ops.convert_to_numpy(v), dtype="f8") for v in model.optimizer.variables]


def our_state(model):
    return model.optimizer.get_state(model.trainable_variables)


def values(model):
    return [np.asarray(keras.ops.convert_to_numpy(w), dtype="f8") for w in model.get_weights()]


def assert_alike(found, expected, tolerance=1e-5):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


@EACH
def test_both_sides_train_alike(optimizer):
    ours, theirs = make("fanin", optimizer), make("keras", optimizer)
    np.testing.assert_allclose(fit(ours, 3), fit(theirs, 3), rtol=1e-5)
    assert_alike(values(ours), values(theirs))
    assert_alike(our_state(ours), state(theirs), 1e-4)


@EACH
@BOTH
def test_the_other_side_goes_on(side, optimizer, tmp_path):
    model = make(side, optimizer)
    fit(model, 1)
    model.save(tmp_path / "model.keras")
    loaded = SIDES["keras" if side == "fanin" else "fanin"][1](tmp_path / "model.keras")
    ours, theirs = (model, loaded) if side == "fanin" else (loaded, model)
    assert_alike(values(ours), values(theirs), 0)
    assert_alike(our_state(ours)[:-1], state(theirs)[:-1], 0)
    assert_alike(our_state(ours), state(theirs), 1e-6)  # the product of Nadam is worked out anew
    assert ours.optimizer.get_config() == theirs.optimizer.get_config()
    np.testing.assert_allclose(fit(ours, 2), fit(theirs, 2), rtol=1e-5)
    assert_alike(values(ours), values(theirs))


@pytest.mark.filterwarnings("ignore:Skipping variable loading:UserWarning")  # Keras's, also of its own such files
@EACH
def test_a_model_never_trained_is_loaded_with_its_optimizer(optimizer, tmp_path):
    model = make("fanin", optimizer)
    model.save(tmp_path / "model.keras")
    for loaded in (load_model(tmp_path / "model.keras"), keras.saving.load_model(tmp_path / "model.keras")):
        assert loaded.optimizer.get_config() == model.optimizer.get_config()
        np.testing.assert_allclose(fit(loaded, 1), fit(make("keras", optimizer), 1), rtol=1e-5)


def test_the_config_of_a_schedule_is_that_of_keras(tmp_path):
    found = []
    for side in SIDES:
        make(side, "sgd cosine").save(tmp_path / "model.keras")
        with zipfile.ZipFile(tmp_path / "model.keras") as archive:
            compiled = json.loads(archive.read("config.json"))["compile_config"]
        found.append(compiled["optimizer"]["config"]["learning_rate"])
    assert found[0] == found[1]
    assert found[0]["module"] == "keras.optimizers.schedules"
