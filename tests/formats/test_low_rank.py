"""Adapters in archives and weights files: apart for us, merged for Keras, and training that goes on."""

import io
import json
import os
import zipfile

os.environ["KERAS_BACKEND"] = "torch"

import h5py
import keras
import numpy as np
import pytest
import torch
from torch import nn

import fanin
from fanin import adapters
from fanin.errors import FormatError, MismatchError
from fanin.layers import Dense, Embedding
from fanin.saving import load_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype("float32")
Y = RNG.normal(size=(48, 3)).astype("float32")
WORDS = RNG.integers(0, 9, size=(48, 4))


def dense_model(**lora):
    return fanin.Sequential([fanin.Input((6,)), Dense(8, "tanh", kernel_regularizer="l2", **lora), Dense(3)])


def named_model():
    """Two adapters, of which the first acts, a bias thawed by hand and a frozen norm."""
    inputs = fanin.Input((4,), dtype="int32")
    rows = Embedding(9, 5)(inputs)
    rows = fanin.layers.LayerNormalization()(rows)
    model = fanin.Model(inputs, Dense(3)(fanin.layers.Flatten()(rows)))
    adapters.add(model, "bob", 1, target="dense*", rslora=True)
    adapters.add(model, "ann", {"embedding*": 2, "dense*": 3}, alpha=6, dropout=0.25)
    adapters.scale(model, "ann", 0.5)
    model.layers[-1].bias.requires_grad_(True)
    spread(model)
    return model


def spread(model):
    """Adapters that do something."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("_a", "_b")):
                weight.normal_()


def state(model):
    return {name: (value.tolist(), value.dtype) for name, value in model.state_dict().items()}


def flags(model):
    return {name: weight.requires_grad for name, weight in model.named_parameters()}


# --- back here --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: dense_model(lora_rank=2, lora_alpha=8), named_model])
def test_an_archive_keeps_base_and_adapters_apart(tmp_path, make):
    model = make()
    spread(model)
    model.save(tmp_path / "model.keras")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    loaded = load_model(tmp_path / "model.keras")
    assert torch.equal(torch.get_rng_state(), before)
    assert state(loaded) == state(model)
    assert flags(loaded) == flags(model)
    assert [layer.__dict__.get("_fanin_held") for layer in loaded.layers] == [
        layer.__dict__.get("_fanin_held") for layer in model.layers
    ]
    assert str(adapters.report(loaded)) == str(adapters.report(model))
    data = WORDS if "embedding" in model.layers[1].name else X
    assert np.array_equal(loaded.predict(data), model.predict(data))
    for name in {each.name for layer in adapters.report(model).layers for each in layer.adapters}:
        adapters.remove(model, name)
        adapters.remove(loaded, name)
    assert flags(loaded) == flags(model)
    assert np.array_equal(loaded.predict(data), model.predict(data))


def test_numbers_come_back(tmp_path):
    model = named_model()
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    again = loaded.layers[-1].adapters["ann"]
    assert (again.rank, again.alpha, again.dropout, again.rslora, again.factor) == (3, 6, 0.25, False, 0.5)
    assert loaded.layers[-1].adapters["bob"].rslora
    assert loaded.layers[-1].active_adapter == "ann"
    adapters.set_active(model, None)
    model.save(tmp_path / "none.keras")
    assert load_model(tmp_path / "none.keras").layers[-1].active_adapter is None


@pytest.mark.parametrize("optimizer", ["adam", fanin.optimizers.SGD(0.05, momentum=0.9)])
@pytest.mark.parametrize("kind", ["lora", "named"])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, optimizer, kind):
    model = dense_model(lora_rank=2, lora_alpha=4)
    if kind == "named":
        model = dense_model()
        adapters.add(model, "ann", 2, alpha=4)
        adapters.add(model, "bob", 2, target="0")
        adapters.set_active(model, "ann")
    model.compile(optimizer, "mse")
    model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    resumed = load_model(tmp_path / "model.keras")
    resumed.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    assert state(resumed) == state(model)
    assert flags(resumed) == flags(model)


def test_a_merged_model_is_saved_unmerged(tmp_path):
    model = named_model()
    whole = state(model)
    before = model.predict(WORDS)
    adapters.merge(model, "ann")
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert state(loaded) == whole
    assert loaded.layers[-1].active_adapter == "ann"
    np.testing.assert_array_equal(loaded.predict(WORDS), before)
    adapters.unmerge(model)
    assert flags(loaded) == flags(model)  # "ann" trains on


# --- in Keras ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: dense_model(lora_rank=2, lora_alpha=8), named_model])
def test_keras_opens_the_archive_with_the_same_predictions(tmp_path, make):
    """Keras multiplies by one merged kernel: the same numbers in another order, 1e-5."""
    model = make()
    spread(model)
    model.save(tmp_path / "model.keras")
    theirs = keras.saving.load_model(tmp_path / "model.keras")
    data = WORDS if "embedding" in model.layers[1].name else X
    ours = model.predict(data)
    np.testing.assert_allclose(theirs.predict(data, verbose=0), ours, rtol=1e-5, atol=1e-5 * np.abs(ours).max())
    model.save_weights(tmp_path / "model.weights.h5")
    theirs.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(theirs.predict(data, verbose=0), ours, rtol=1e-5, atol=1e-5 * np.abs(ours).max())


def test_keras_goes_on_training_its_kind_of_lora(tmp_path):
    model = dense_model(lora_rank=2)
    model.compile("adam", "mse")
    model.fit(X, Y, epochs=1, verbose=0)
    model.save(tmp_path / "model.keras")
    theirs = keras.saving.load_model(tmp_path / "model.keras")
    layer = theirs.layers[0]
    assert layer.lora_enabled
    assert [w.name for w in layer.trainable_weights] == ["bias", "lora_kernel_a", "lora_kernel_b"]
    assert int(theirs.optimizer.iterations) == model.optimizer.iterations
    np.testing.assert_allclose(layer.kernel.detach().numpy(), model.layers[0].effective_kernel.detach(), atol=1e-6)
    theirs.fit(X, Y, epochs=1, verbose=0)


def test_kerass_archive_trains_here_where_its_own_gradients_vanish(tmp_path):
    theirs = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, lora_rank=2), keras.layers.Dense(1, lora_rank=2000)]
    )
    for layer in theirs.layers:
        layer.lora_kernel_b.assign(RNG.normal(size=layer.lora_kernel_b.shape))
    theirs.save(tmp_path / "theirs.keras")
    back = keras.saving.load_model(tmp_path / "theirs.keras").layers[0]
    assert not back.lora_kernel_a.numpy().any()
    assert not back.lora_kernel_b.numpy().any()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    ours = load_model(tmp_path / "theirs.keras")
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X, verbose=0), rtol=1e-4, atol=1e-4)
    layer = ours.layers[0]
    assert layer.lora_kernel_a.abs().max() > 0.1
    assert layer.lora_kernel_a.abs().max() <= 1  # he_uniform of 6 inputs
    assert (layer.lora_kernel_b == 0).all()
    assert [weight.requires_grad for weight in layer.weights] == [False, True, True, True]
    ours(torch.from_numpy(X)).sum().backward()
    assert layer.lora_kernel_b.grad.any()


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_kerass_legacy_file_brings_the_pair(tmp_path):
    theirs = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, lora_rank=2)])
    theirs.layers[0].lora_kernel_b.assign(RNG.normal(size=(2, 8)))
    theirs.save(tmp_path / "theirs.h5")
    ours = load_model(tmp_path / "theirs.h5")
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X, verbose=0), rtol=1e-5, atol=1e-5)
    assert ours.layers[0].lora_kernel_b.any()


# --- weights files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["weights.h5", "safetensors"])
def test_weights_files_of_models_with_adapters(tmp_path, ending):
    model, other = named_model(), named_model()
    path = tmp_path / f"model.{ending}"
    model.save_weights(path)
    other.load_weights(path)
    assert state(other) == state(model)


def test_weights_without_adapters_and_models_without(tmp_path):
    plain, lora = dense_model(), dense_model(lora_rank=2)
    spread(lora)
    path = tmp_path / "plain.weights.h5"
    plain.save_weights(path)
    lora.load_weights(path)  # as Keras: the file's kernel, and an adapter that begins anew
    np.testing.assert_allclose(lora.predict(X), plain.predict(X), rtol=1e-6, atol=1e-6)
    assert lora.layers[0].lora_kernel_a.any()
    spread(lora)
    path = tmp_path / "lora.weights.h5"
    lora.save_weights(path)
    plain.load_weights(path)
    np.testing.assert_allclose(plain.predict(X), lora.predict(X), rtol=1e-5, atol=1e-5)


def test_other_adapters_are_a_mismatch_and_nothing_changes(tmp_path):
    model, other, ranked = dense_model(), dense_model(), dense_model()
    adapters.add(model, "ann", 2, target="0")
    adapters.add(other, "bob", 2, target="0")
    adapters.add(ranked, "ann", 3, target="0")
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    for each, message in ((other, "bob_kernel_a is missing"), (ranked, r"ann_kernel_a has shape \(6, 2\)")):
        before = state(each)
        with pytest.raises(MismatchError, match=message):
            each.load_weights(path)
        assert state(each) == before
    adapters.merge(model, "ann")
    with pytest.raises(MismatchError, match="unmerge it before loading"):
        model.load_weights(path)


def test_plain_torch_modules(tmp_path):
    model, other = (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)) for _ in range(2))
    path = tmp_path / "model.weights.h5"
    adapters.add(model, "ann", 2, b_initializer="ones")
    fanin.formats.weights.save_weights(model, path)
    fanin.formats.weights.load_weights(other, path)
    inputs = torch.from_numpy(X)
    torch.testing.assert_close(other(inputs), model(inputs))  # merged
    adapters.add(other, "ann", 2)
    fanin.formats.weights.load_weights(other, path)
    assert torch.equal(other(inputs), model(inputs))
    assert torch.equal(other[0].weight, model[0].weight)


def test_what_is_in_the_file(tmp_path):
    layer = Dense(3, lora_rank=2)
    layer.build((None, 6))
    torch.nn.init.normal_(layer.lora_kernel_b)
    fanin.formats.weights.save_weights(layer, tmp_path / "layer.weights.h5")
    with h5py.File(tmp_path / "layer.weights.h5") as file:
        assert sorted(file["fanin_adapters/vars"]) == ["kernel", "lora_kernel_a", "lora_kernel_b"]
        assert sorted(file["vars"]) == ["0", "1"]
        np.testing.assert_array_equal(file["vars/0"], layer.effective_kernel.detach())
        np.testing.assert_array_equal(file["fanin_adapters/vars/kernel"], layer.kernel.detach())


# --- hostile ----------------------------------------------------------------------------------------------------------


def changed(path, change):
    """The archive with another "adapters"."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in (members | {"config.json": json.dumps(config).encode()}).items():
            archive.writestr(name, data)
    path.write_bytes(file.getvalue())
    return path


def put(*place):
    """Put the last of `place` at the keys before it."""
    *keys, last, value = place

    def change(config):
        part = config["adapters"]
        for key in keys:
            part = part[key]
        part[last] = value

    return change


DENSE = "layers/dense"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(DENSE, "adapters", 0, "rank", 10**9), "needs .* bytes"),
        (put(DENSE, "adapters", 0, "rank", 3), "shape"),
        (put(DENSE, "adapters", 0, "rank", -1), "rank must be a positive integer"),
        (put(DENSE, "adapters", 0, "rank", "2"), "rank must be a positive integer"),
        (put(DENSE, "adapters", 0, "name", "../x"), "letters, digits and underscores"),
        (put(DENSE, "adapters", 0, "name", "eve"), "There is no adapter 'ann' here, only 'eve'"),
        (put(DENSE, "adapters", 0, "a_initializer", "ones"), "expected name, rank"),
        (put(DENSE, "adapters", 0, {}), "expected name, rank"),
        (put(DENSE, "adapters", 3), "adapters at"),
        (put(DENSE, "active", "eve"), "no adapter 'eve'"),
        (put(DENSE, "active", ["ann"]), "no adapter"),
        (put(DENSE, "held", {"kernel": 3}), "does not say why 'kernel' is frozen"),
        (put(DENSE, "held", {"nothing": {"before": True, "now": True, "for": []}}), "no parameter that can be frozen"),
        (put(DENSE, "held", {"kernel": {"before": 1, "now": True, "for": []}}), "no parameter that can be frozen"),
        (put(DENSE, "held", [1]), "adapters at"),
        (put("layers/nothing", {}), "no layer at 'layers/nothing'"),
        (put(DENSE, None), "expected path"),
        (lambda config: config.update(adapters=[1]), "expected path"),
        (lambda config: config.pop("adapters"), None),
    ],
)
def test_other_descriptions_are_refused(tmp_path, change, message):
    model = dense_model()
    adapters.add(model, "ann", 2, target="0")
    model.save(tmp_path / "model.keras")
    path = changed(tmp_path / "model.keras", change)
    if message is None:  # without the description the merged kernel is there still
        np.testing.assert_allclose(load_model(path).predict(X), model.predict(X), atol=1e-5)
        return
    with pytest.raises(FormatError, match=message):
        load_model(path)


def test_a_rank_that_the_file_does_not_pay_for(tmp_path):
    model = dense_model(lora_rank=2)
    model.save(tmp_path / "model.keras")

    def change(config):
        del config["adapters"]
        config["config"]["layers"][1]["config"]["lora_rank"] = 10**8

    with pytest.raises(FormatError, match=r"needs .* bytes"):
        load_model(changed(tmp_path / "model.keras", change))


@pytest.mark.parametrize("make", [Dense, None])
def test_alpha_stands_only_where_keras_3_6_does_not_look(tmp_path, make):
    """Keras 3.6 refuses a layer with the option; Keras 3.15 has it, and drops it as it builds the layer."""
    inner = dense_model(lora_rank=2, lora_alpha=6)
    model = inner if make else fanin.Sequential([fanin.Input((6,)), inner])  # a model as a layer, too
    spread(model)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = json.loads(archive.read("config.json"))
    assert "lora_alpha" not in json.dumps(config["config"])
    again = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    layer = again.layers[0] if make else again.layers[0].layers[0]
    assert (layer.lora_rank, layer.lora_alpha) == (2, 6)
