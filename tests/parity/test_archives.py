"""The corpus of models, from library to library: equal predictions, and training that goes on where it stopped.

Both sides compute in float32, in another order: predictions of these small models (some tens of roundings of 6e-8)
agree within 1e-5, and what two steps of an optimizer make of that within 1e-4.

The ordinary tests take Keras on its torch backend, in this process. The slow ones run Keras in other Pythons, which
need Keras and nothing of fanin: this one, and those whose paths are in FANIN_KERAS_JAX and FANIN_KERAS_TENSORFLOW.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import h5py
import keras
import numpy as np
import pytest
import torch

import fanin

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("corpus", HERE / "corpus.py")
corpus = importlib.util.module_from_spec(spec)
spec.loader.exec_module(corpus)

SIDES = {"fanin": (fanin, fanin.saving.load_model), "keras": (keras, keras.saving.load_model)}
PYTHONS = {
    "torch": sys.executable,
    "jax": os.environ.get("FANIN_KERAS_JAX"),
    "tensorflow": os.environ.get("FANIN_KERAS_TENSORFLOW"),
}
BACKENDS = [backend for backend, python in PYTHONS.items() if python]
# Where Keras's backends differ among themselves in what training does; the torch backend, and fanin, agree.
OTHERWISE = {
    "torch": (),
    # A layer that is called twice adds its activity penalty once; masks do not reach the metrics.
    "jax": (
        "shared_across_ranks", "penalties",
        "masked_embedding", "masked_numbers", "masks_through_a_nested_model", "Masking",
    ),
    # Adam and its kin take the gradient of an embedding as a sparse one.
    "tensorflow": ("masks_through_a_nested_model",),
}  # fmt: skip

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # Keras says so of a model inside another, and then hands it the mask.
    pytest.mark.filterwarnings("ignore:Layer 'inner' .* was passed an input with a mask:UserWarning"),
]


def check(ours, theirs, tolerance):
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", corpus.CASES)
@pytest.mark.parametrize("side", SIDES)
def test_the_other_library_goes_on(tmp_path, side, name):
    path = str(tmp_path / "m.keras")
    keras.utils.clear_session(free_memory=False)
    lib, (_, load) = SIDES[side][0], SIDES["keras" if side == "fanin" else "fanin"]
    model = corpus.build(lib, name)
    corpus.compile_and_train(lib, name, model)
    model.save(path)
    loaded = load(path)
    check(corpus.predict(name, model), corpus.predict(name, loaded), 1e-5)
    assert int(loaded.optimizer.iterations) == 2
    assert loaded.count_params() == model.count_params()
    if corpus.CASES[name].random:
        return
    first, second = corpus.train(name, model), corpus.train(name, loaded)
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_allclose(second[key], first[key], rtol=1e-4)
    check(corpus.predict(name, model), corpus.predict(name, loaded), 1e-4)


def shared():
    """A layer in two models that are nested in a third, and in the third itself."""
    layer = fanin.layers.Dense(4, "tanh", name="shared")
    models = []
    for name in ("left", "right"):
        x = fanin.Input((4,))
        models.append(fanin.Model(x, fanin.layers.Dense(4)(layer(x)), name=name))
    x = fanin.Input((4,))
    return fanin.Model(x, fanin.layers.Add()([models[0](x), fanin.Sequential([layer, models[1]])(layer(x))]))


def test_a_layer_shared_between_models_stays_one(tmp_path):
    """Keras writes such archives but cannot read them."""
    model = shared()
    model.save(tmp_path / "m.keras")
    loaded = fanin.saving.load_model(tmp_path / "m.keras")
    x = np.random.normal(size=(3, 4)).astype("f4")
    np.testing.assert_array_equal(model.predict(x, verbose=0), loaded.predict(x, verbose=0))
    assert len(loaded.weights) == len(model.weights) == 6
    found = loaded.get_layer("shared")
    assert loaded.get_layer("left").get_layer("shared") is found
    assert loaded.layers[-2].layers[0] is found
    assert loaded.layers[-2].layers[1].get_layer("shared") is found


def test_counts_of_64_bits_are_read(tmp_path):
    """Keras on TensorFlow counts so."""
    model = corpus.build(fanin, "adapted_normalization")
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        del file["layers/normalization/vars/2"]
        file["layers/normalization/vars/2"] = np.int64(7)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, content in {**members, "model.weights.h5": weights.getvalue()}.items():
            archive.writestr(name, content)
    loaded = fanin.saving.load_model(tmp_path / "m.keras")
    assert loaded.layers[1].count.item() == 7
    assert loaded.layers[1].count.dtype == torch.int32


# --- Keras in another process -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """For each backend a folder with archives of both sides, and what the other Python found."""
    made = {}

    def make(backend):
        if backend not in made:
            made[backend] = exchange(backend, tmp_path_factory.mktemp(backend))
        return made[backend]

    return make


def exchange(backend, folder):
    """Let fanin write, then let Keras read and write; returns the folder, what failed, and fanin's own numbers."""
    for side in SIDES:
        (folder / side).mkdir()
    expected = {}
    for name in corpus.CASES:
        fanin.config.clear_session(free_memory=False)
        model = corpus.build(fanin, name)
        corpus.compile_and_train(fanin, name, model)
        model.save(folder / "fanin" / f"{name}.keras")
        expected[name] = corpus.predict(name, model), corpus.train(name, model)
    script = [PYTHONS[backend], str(HERE / "other_keras.py"), str(folder)]
    subprocess.run(script, env={**os.environ, "KERAS_BACKEND": backend}, check=True, capture_output=True)
    return folder, json.loads((folder / "failures.json").read_text())["failures"], expected


@pytest.mark.slow
@pytest.mark.parametrize("name", corpus.CASES)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_keras_in_another_python(folders, backend, side, name):
    folder, failures, expected = folders(backend)
    assert failures.get(f"{side} {name}") is None
    theirs = np.load(folder / side / f"{name}.npz")
    predictions, numbers = expected[name]
    if side == "keras":
        model = fanin.saving.load_model(folder / "keras" / f"{name}.keras")
        assert int(model.optimizer.iterations) == 2
        predictions = corpus.predict(name, model)
        numbers = corpus.train(name, model)
    check(predictions, [theirs[f"prediction_{place}"] for place in range(len(predictions))], 1e-5)
    assert int(theirs["iterations"]) == 4
    if not corpus.CASES[name].random and name not in OTHERWISE[backend]:
        assert {f"number_{key}" for key in numbers} == {key for key in theirs if key.startswith("number_")}
        for key, value in numbers.items():
            np.testing.assert_allclose(value, theirs[f"number_{key}"], rtol=1e-4)
