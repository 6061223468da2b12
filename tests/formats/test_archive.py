"""Saving and loading `.keras` archives: everything comes back, training goes on, and no failure costs a file."""

import io
import json
import os
import pathlib
import random
import resource
import signal
import time
import zipfile

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fanin
from fanin import constraints, initializers, optimizers, regularizers, write
from fanin.formats import archive, hdf5
from fanin.layers import Dense
from fanin.registry import register_keras_serializable
from fanin.saving import load_model


@register_keras_serializable("tests")
def wavy(x):
    return torch.sin(x)


@register_keras_serializable("tests")
class Scale(fanin.Layer):
    """No compute_output_shape: it is tried on symbols. Own weights of both kinds, and a sublayer."""

    def __init__(self, inner=None, **kwargs):
        super().__init__(**kwargs)
        self.inner_units = inner
        self.project = Dense(inner) if inner else None

    def build(self, input_shape):
        self.factor = self.add_weight("factor", (input_shape[-1],), initializer="ones")
        self.seen = self.add_weight("seen", (), dtype="int64", trainable=False)
        if self.project is not None:
            self.project.build(input_shape)

    def call(self, inputs):
        scaled = inputs * self.factor
        return scaled if self.project is None else self.project(scaled)

    def get_config(self):
        return {**super().get_config(), "inner": self.inner_units}


def data(rows=12, inputs=3, outputs=2):
    generator = np.random.default_rng(1)
    return generator.normal(size=(rows, inputs)).astype("f4"), generator.normal(size=(rows, outputs)).astype("f4")


def small(optimizer=None, **kwargs):
    model = fanin.Sequential([fanin.Input((3,)), Dense(4, "relu", **kwargs), Dense(2)])
    if optimizer is not None:
        model.compile(optimizer, "mse", metrics=["mae"])
    return model


def same(one, other):
    assert len(one.weights) == len(other.weights)
    for a, b in zip(one.weights, other.weights, strict=True):
        assert a.dtype == b.dtype
        assert a.requires_grad == b.requires_grad
        assert torch.equal(a.detach().flatten().view(torch.uint8), b.detach().flatten().view(torch.uint8))


# --- round trip -------------------------------------------------------------------------------------------------------

maybe = st.booleans()
layers = st.fixed_dictionaries(
    {
        "units": st.integers(1, 9),
        "activation": st.sampled_from([None, "relu", "softmax", "gelu", wavy]),
        "use_bias": maybe,
        "kernel_initializer": st.sampled_from(
            ["he_normal", initializers.VarianceScaling(0.5, "fan_out", "uniform", seed=3), initializers.Constant(0.25)]
        ),
        "bias_initializer": st.sampled_from(["zeros", initializers.RandomUniform(-1, 1)]),
        "kernel_regularizer": st.sampled_from([None, "l2", regularizers.L1L2(0.1, 0.2)]),
        "bias_regularizer": st.sampled_from([None, "l1"]),
        "activity_regularizer": st.sampled_from([None, "l2"]),
        "kernel_constraint": st.sampled_from([None, "non_neg", constraints.MaxNorm(2.0, axis=1)]),
        "bias_constraint": st.sampled_from([None, "unit_norm"]),
        "trainable": maybe,
        "dtype": st.sampled_from(["float32", "float64", "bfloat16", "mixed_bfloat16", "float16"]),
    }
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(layers, min_size=1, max_size=4), st.integers(1, 6), st.lists(st.text("abcü_-. 1", min_size=1), unique=True)
)
def test_random_models_come_back(tmp_path_factory, configs, inputs, names):
    path = tmp_path_factory.mktemp("round") / "model.keras"
    for config, name in zip(configs, names, strict=False):
        config["name"] = name
    model = fanin.Sequential([fanin.Input((inputs,)), *(Dense(**config) for config in configs)])
    model.save(path)
    loaded = load_model(path)
    same(model, loaded)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    assert loaded.get_config() == model.get_config()
    x = np.random.default_rng(0).normal(size=(5, inputs)).astype("f4")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert os.listdir(path.parent) == ["model.keras"]


def test_nested_and_custom_layers_come_back(tmp_path):
    inner = fanin.Sequential([Dense(4, activity_regularizer="l2"), Dense(4)], name="inner")
    model = fanin.Sequential([fanin.Input((3,)), inner, Scale(5), Scale(), Dense(1)])
    model.layers[1].seen += 7
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    same(model, loaded)
    assert loaded.layers[1].seen.item() == 7
    x, _ = data()
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    model(torch.tensor(x)), loaded(torch.tensor(x))
    assert len(loaded.losses) == len(model.losses) == 1


def test_model_without_input_layer_comes_back(tmp_path):
    model = fanin.Sequential([Dense(4), Dense(2)])
    model(torch.ones(2, 3))
    model.save(tmp_path / "m.keras")
    same(model, load_model(tmp_path / "m.keras"))


def test_custom_objects_stand_in_for_registration(tmp_path):
    def local(x):
        return x * 2

    register_keras_serializable("gone")(local)
    model = fanin.Sequential([fanin.Input((3,)), Dense(2, local)])
    model.save(tmp_path / "m.keras")
    fanin.saving.get_custom_objects().pop("gone>local")
    with pytest.raises(fanin.errors.MismatchError, match="gone>local"):
        load_model(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", custom_objects={"gone>local": local})
    assert loaded.layers[0].activation is local


def test_what_the_table_of_custom_objects_holds_is_found(tmp_path):
    class Doubled(fanin.Layer):
        def call(self, inputs):
            return 2 * inputs

    def local(x):
        return x * 2

    table = fanin.saving.get_custom_objects()
    table.update(Doubled=Doubled, local=local)
    try:
        model = fanin.Sequential([fanin.Input((3,)), Dense(2, "local"), Doubled()])
        model.save(tmp_path / "m.keras")
        loaded = load_model(tmp_path / "m.keras")
    finally:
        del table["Doubled"], table["local"]
    same(model, loaded)
    assert loaded.layers[0].activation is local
    with pytest.raises(fanin.errors.MismatchError, match="Doubled"):
        load_model(tmp_path / "m.keras")
    with fanin.saving.CustomObjectScope({"Doubled": Doubled, "local": local}):
        same(model, load_model(tmp_path / "m.keras"))


@pytest.mark.parametrize("safe_mode", [True, False])
def test_safe_mode_changes_nothing(tmp_path, safe_mode, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import keras

    model = small()
    model.save(tmp_path / "m.keras")
    same(model, load_model(tmp_path / "m.keras", safe_mode=safe_mode))
    keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x)]).save(tmp_path / "code.keras")
    with pytest.raises(fanin.errors.UnsafeError):
        load_model(tmp_path / "code.keras", safe_mode=safe_mode)


def test_loading_leaves_the_random_state_alone(tmp_path):
    small().save(tmp_path / "m.keras")
    before = torch.get_rng_state()
    load_model(tmp_path / "m.keras")
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_are_not_finite_come_back(tmp_path):
    model = small()
    with torch.no_grad():
        model.weights[0][0, 0], model.weights[0][0, 1] = torch.nan, torch.inf
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "m.keras").get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_takes_paths_of_both_kinds(tmp_path, kind):
    path = kind(tmp_path / "m.keras")
    model = small()
    model.save(path)
    fanin.saving.save_model(model, path)
    same(model, load_model(path))


def test_equal_models_give_equal_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(archive.time, "strftime", lambda _: "2000-01-01@00:00:00")
    model = small("adam")
    model.fit(*data(), verbose=0)
    for name in ("a.keras", "b.keras"):
        model.save(tmp_path / name)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


def test_metadata_and_layout(tmp_path):
    model = small("adam")
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as file:
        assert file.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}
        metadata = json.loads(file.read("metadata.json"))
        assert metadata["fanin_version"] == fanin.__version__
        assert metadata["keras_version"].startswith("3.")
        time.strptime(metadata["date_saved"], "%Y-%m-%d@%H:%M:%S")
        text = file.read("config.json").decode()
        assert "quantization_config" not in text
        assert "input_axes" not in text
        assert '"keras.optimizers"' in text
        with h5py.File(io.BytesIO(file.read("model.weights.h5"))) as stored:
            assert stored["layers/dense_1/vars"].attrs["name"] == model.layers[1].name
            assert stored["optimizer/vars/0"].dtype == "int32"
            assert len(stored["optimizer/vars"]) == 10


# --- training goes on -------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.05),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.01),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True, clipnorm=1.0),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.01),
    "centered": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_exactly(tmp_path, name):
    x, y = data(40)
    model = small(OPTIMIZERS[name](), kernel_regularizer="l2", kernel_constraint="max_norm")
    model.save(tmp_path / "start.keras")
    unbroken = load_model(tmp_path / "start.keras")
    unbroken.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0)
    model.fit(x, y, epochs=1, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "middle.keras")
    resumed = load_model(tmp_path / "middle.keras")
    assert resumed.optimizer.iterations == 5
    resumed.fit(x, y, epochs=2, batch_size=8, shuffle=False, verbose=0)
    same(unbroken, resumed)
    states = zip(unbroken.optimizer.get_state(), resumed.optimizer.get_state(), strict=True)
    assert all(np.array_equal(a, b) for a, b in states)


def test_learning_rate_that_was_changed_comes_back(tmp_path):
    model = small("sgd")
    model.fit(*data(), verbose=0)
    model.optimizer.learning_rate = 0.125
    model.save(tmp_path / "m.keras")
    assert load_model(tmp_path / "m.keras").optimizer.learning_rate == 0.125


def test_compile_false_leaves_the_model_uncompiled(tmp_path):
    small("adam").save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras", compile=False)
    assert not loaded.compiled
    assert loaded.optimizer is None
    with pytest.raises(RuntimeError, match="not compiled"):
        loaded.evaluate([[1.0]], [[1.0]])


def test_unknown_loss_says_how_to_do_without(tmp_path):
    model = small("adam")
    model.save(tmp_path / "m.keras")
    rewrite(tmp_path / "m.keras", "config.json", lambda c: c.replace(b'"loss": "mse"', b'"loss": "nobody_knows"'))
    with pytest.raises(fanin.errors.MismatchError, match="compile=False"):
        load_model(tmp_path / "m.keras")
    same(model, load_model(tmp_path / "m.keras", compile=False))


def test_optimizer_state_that_does_not_fit_is_left_out_with_a_warning(tmp_path):
    model = small("adam")
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "m.keras")

    def freeze(config):
        tree = json.loads(config)
        tree["config"]["layers"][1]["config"]["trainable"] = False
        return json.dumps(tree).encode()

    rewrite(tmp_path / "m.keras", "config.json", freeze)
    with pytest.warns(UserWarning, match="state of the optimizer"):
        load_model(tmp_path / "m.keras")


def test_frozen_weights_have_no_state_in_the_file(tmp_path):
    model = small("adam")
    model.fit(*data(), verbose=0)
    model.layers[0].trainable = False
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    assert [w.requires_grad for w in loaded.weights] == [False, False, True, True]
    assert len(loaded.optimizer.get_state(loaded.trainable_variables)) == 6


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, lambda p: torch.optim.Adam(p)])
def test_torch_optimizers_are_left_out_with_one_warning(tmp_path, optimizer):
    model = small()
    model.compile(optimizer, "mse")
    with pytest.warns(UserWarning, match="without its optimizer") as caught:
        model.save(tmp_path / "m.keras")
    assert len(caught) == 1
    same(model, load_model(tmp_path / "m.keras"))


def rewrite(path, member, change):
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members[member] = change(members[member])
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda d: (small(), d / "m.h5"), ValueError, r"m\.h5.*must end in '\.keras'"),
        (lambda d: (small(), d / "none" / "m.keras"), FileNotFoundError, "no folder.*none"),
        (lambda d: (small(), d / "folder.keras"), IsADirectoryError, "folder.keras"),
        (lambda d: (fanin.Sequential([Dense(2)]), d / "m.keras"), ValueError, "build it"),
        (lambda d: (fanin.Sequential([fanin.Input((3,)), Dense(2, lambda x: x)]), d / "m.keras"), ValueError, "lambda"),
        (
            lambda d: (fanin.Sequential([fanin.Input((3,)), torch.nn.Linear(3, 2)]), d / "m.keras"),
            ValueError,
            "torch module",
        ),
    ],
)
def test_refuses_before_any_file_is_touched(tmp_path, make, error, match):
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "m.keras").write_bytes(b"old")
    model, path = make(tmp_path)
    with pytest.raises(error, match=match):
        model.save(path)
    assert sorted(os.listdir(tmp_path)) == ["folder.keras", "m.keras"]
    assert (tmp_path / "m.keras").read_bytes() == b"old"


def test_overwrite_false_and_permission(tmp_path, monkeypatch):
    path = tmp_path / "m.keras"
    small().save(path, overwrite=False)
    with pytest.raises(ValueError, match=r"m\.keras.*overwrite=False"):
        small().save(path, overwrite=False)
    monkeypatch.setattr(archive.os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="no permission"):
        small().save(path)


def test_load_names_what_is_missing_or_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.keras"):
        load_model(tmp_path / "none.keras")
    with pytest.raises(IsADirectoryError, match="directory"):
        load_model(tmp_path)


def test_a_link_keeps_pointing_at_the_file(tmp_path):
    small().save(tmp_path / "real.keras")
    (tmp_path / "link.keras").symlink_to(tmp_path / "real.keras")
    model = small()
    model.save(tmp_path / "link.keras")
    assert (tmp_path / "link.keras").is_symlink()
    same(model, load_model(tmp_path / "real.keras"))


# --- failures while writing -------------------------------------------------------------------------------------------


def fail(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("where", "name"), [(write.os, "replace"), (write.os, "fsync"), (h5py.Group, "create_dataset"), (hdf5, "write")]
)
def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, where, name):
    path = tmp_path / "m.keras"
    small().save(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail)
        with pytest.raises(OSError, match="No space left"):
            small().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.keras"]


@pytest.mark.parametrize("room", [0, 30, 1_000, 5_000, 8_000])
def test_a_full_disk_leaves_the_old_file(tmp_path, room):
    path = tmp_path / "m.keras"
    small().save(path)
    before = path.read_bytes()
    assert len(before) > 8_000
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            small().save(path)
        except OSError:
            outcome = 0
        finally:
            os._exit(outcome)
    assert os.waitpid(child, 0)[1] == 0
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.keras"]


def killed_while_saving(folder, kills):
    """Children save over a file in a loop and are killed; returns how many temporary files are left."""
    path = folder / "m.keras"
    model = fanin.Sequential([fanin.Input((64,)), Dense(256), Dense(64)])
    model.save(path)
    same(model, load_model(path))
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    archive.save_model(model, path)
            finally:
                os._exit(1)
        time.sleep(random.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        same(model, load_model(path))
    return len(os.listdir(folder)) - 1


def test_killed_saves_never_cost_the_file(tmp_path):
    assert killed_while_saving(tmp_path, 20) <= 20


@pytest.mark.slow
def test_many_killed_saves_never_cost_the_file(tmp_path):
    assert killed_while_saving(tmp_path, 200) <= 200


def test_nothing_stays_open(tmp_path):
    path = tmp_path / "m.keras"
    small("adam").save(path)
    load_model(path)
    handles = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        load_model(path)
        small().save(path)
        (tmp_path / "bad.keras").write_bytes(path.read_bytes()[:-5])
        with pytest.raises(fanin.errors.FormatError):
            load_model(tmp_path / "bad.keras")
    assert len(os.listdir("/proc/self/fd")) == handles
