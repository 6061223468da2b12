"""ModelCheckpoint writes the files that Keras's writes."""

import os
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin.callbacks import Callback, ModelCheckpoint

VALUES = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])


class Writer(SimpleNamespace):
    """A model that writes down when it was saved."""

    def __init__(self):
        super().__init__(stop_training=False, epoch=None)

    def save(self, path, overwrite):
        with open(path, "a") as file:
            file.write(f"{self.epoch} {overwrite} ")

    def save_weights(self, path, overwrite):
        self.save(path, overwrite)


def files(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@settings(
    derandomize=True, deadline=None, phases=[Phase.generate], max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    name=st.sampled_from(["m", "{epoch:02d}-{val_loss:.2f}", "sub/{epoch}", "{val_loss:.1f}"]),
    weights=st.booleans(),
    values=st.lists(VALUES, min_size=1, max_size=8),
    arguments=st.fixed_dictionaries(
        {
            "save_best_only": st.booleans(),
            "mode": st.sampled_from(["min", "max"]),
            "initial_value_threshold": st.sampled_from([None, 0.6]),
        }
    ),
)
def test_files_are_those_of_keras(drive, tmp_path_factory, name, weights, values, arguments):
    ending = ".weights.h5" if weights else ".keras"
    seen = []
    for library in (keras, fanin):
        folder = tmp_path_factory.mktemp("files")
        path = folder / f"{name}{ending}"
        callback = library.callbacks.ModelCheckpoint(path, save_weights_only=weights, **arguments)
        for _ in range(2):  # the best is kept from one training to the next
            drive(callback, [{"val_loss": value} for value in values], Writer())
        seen.append((files(folder), callback.best))
    assert seen[0] == seen[1]


@settings(
    derandomize=True, deadline=None, phases=[Phase.generate], max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(every=st.integers(1, 7), epochs=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_files_of_batches_are_those_of_keras(tmp_path_factory, every, epochs):
    seen = []
    for library in (keras, fanin):
        folder = tmp_path_factory.mktemp("files")
        callback = library.callbacks.ModelCheckpoint(folder / "{epoch}-{batch}-{loss:.1f}.keras", save_freq=every)
        callback.set_model(Writer())
        for epoch, batches in enumerate(epochs):
            callback.on_epoch_begin(epoch)
            for batch in range(batches):
                callback.on_train_batch_end(batch, {"loss": batch / 2})
            callback.on_epoch_end(epoch, {"loss": 0.0})
        seen.append(files(folder))
    assert seen[0] == seen[1]


def test_in_fit(model, data, tmp_path):
    made = model()
    checkpoint = ModelCheckpoint(tmp_path / "new" / "{epoch:02d}.keras", monitor="mae", save_best_only=True)
    made.fit(*data, epochs=3, callbacks=checkpoint, verbose=0)
    assert sorted(os.listdir(tmp_path / "new")) == ["01.keras", "02.keras", "03.keras"]
    loaded = fanin.saving.load_model(tmp_path / "new" / "03.keras")
    for one, other in zip(made.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.optimizer.iterations == 3


@pytest.mark.parametrize("ending", [".weights.h5", ".safetensors"])
def test_weights_alone(model, data, tmp_path, ending):
    made = model()
    path = tmp_path / f"best{ending}"
    made.fit(*data, callbacks=ModelCheckpoint(path, save_weights_only=True), verbose=0)
    weights = made.get_weights()
    made.fit(*data, verbose=0)
    made.load_weights(path)
    for one, other in zip(made.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_failed_save_leaves_the_file_before(model, data, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    made = model()
    made.fit(*data, callbacks=ModelCheckpoint(path), verbose=0)
    before = path.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        made.fit(*data, callbacks=ModelCheckpoint(path), verbose=0)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.keras"]


def test_it_says_what_it_does(drive, tmp_path, capsys):
    checkpoint = ModelCheckpoint(tmp_path / "m.keras", save_best_only=True, mode="min", verbose=1)
    drive(checkpoint, [{"val_loss": 0.5}, {"val_loss": 0.25}, {"val_loss": 1.0}], Writer())
    path = tmp_path / "m.keras"
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 1: val_loss improved to 0.50000",
        f"Epoch 1: saved {path}",
        "Epoch 2: val_loss improved from 0.50000 to 0.25000",
        f"Epoch 2: saved {path}",
        "Epoch 3: val_loss did not improve from 0.25000",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"filepath": "m.h5"}, r"save_weights_only=False, filepath must end in '\.keras', found 'm\.h5'"),
        ({"filepath": "m"}, r"must end in '\.keras'"),
        ({"filepath": "m.keras", "save_weights_only": True}, r"must end in '\.weights\.h5' or '\.safetensors'"),
        ({"filepath": "m.h5", "save_weights_only": True}, r"must end in '\.weights\.h5'"),
        ({"filepath": "{epoch.keras"}, "cannot be filled in"),
        ({"filepath": "{}.keras"}, "cannot be filled in"),
        ({"filepath": "{loss:02d}.keras"}, "cannot be filled in"),
        ({"filepath": "{loss.mean}.keras"}, "cannot be filled in"),
        ({"filepath": "{batch}.keras"}, "names a batch, but save_freq is 'epoch'"),
        ({"filepath": "m.keras", "save_freq": "batch"}, "save_freq must be 'epoch' or a number of batches"),
        ({"filepath": "m.keras", "save_freq": 0}, "save_freq must be 'epoch' or a number of batches, found 0"),
        ({"filepath": "m.keras", "save_freq": True}, "save_freq must be 'epoch' or a number of batches"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        ModelCheckpoint(**arguments)


def test_what_only_shows_in_training(drive, tmp_path):
    with pytest.raises(KeyError, match="names 'val_loss', which training does not give: epoch, loss"):
        drive(ModelCheckpoint(tmp_path / "{val_loss:.2f}.keras"), [{"loss": 1.0}], Writer())
    (tmp_path / "1.keras").mkdir()
    with pytest.raises(IsADirectoryError, match=r"1\.keras' is a folder, expected the name of a file"):
        drive(ModelCheckpoint(tmp_path / "{epoch}.keras"), [{"loss": 1.0}], Writer())


def test_the_model_goes_on_after_a_save_within_an_epoch(model, data, tmp_path):
    class Mode(Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(self.model.training)

    seen, made, plain = [], model(), model()
    plain.set_weights(made.get_weights())
    each = ModelCheckpoint(tmp_path / "{epoch}-{batch}.keras", save_freq=2)
    made.fit(*data, epochs=2, batch_size=4, shuffle=False, callbacks=[each, Mode()], verbose=0)
    plain.fit(*data, epochs=2, batch_size=4, shuffle=False, verbose=0)
    assert sorted(os.listdir(tmp_path)) == ["1-2.keras", "2-1.keras", "2-3.keras"]
    assert seen == [True] * 6
    np.testing.assert_array_equal(made.get_weights()[0], plain.get_weights()[0])
