"""Training that was interrupted and run again ends as if nothing had happened."""

import functools
import json
import os
import warnings

import keras
import numpy as np
import pytest
import torch

import fanin
from fanin.callbacks import BackupAndRestore, Callback, ReduceLROnPlateau

EPOCHS, ROWS, BATCH = 4, 20, 4  # five batches in an epoch


class PowerCut(Callback):
    """Ends everything at one place of training."""

    def __init__(self, hook, epoch, batch=None):
        super().__init__()
        self.place = (hook, epoch, batch)
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self._cut("on_epoch_begin", None)

    def on_train_batch_end(self, batch, logs=None):
        self._cut("on_train_batch_end", batch)

    def on_test_begin(self, logs=None):
        self._cut("on_test_begin", None)

    def on_epoch_end(self, epoch, logs=None):
        self._cut("on_epoch_end", None)

    def _cut(self, hook, batch):
        if (hook, self.epoch, batch) == self.place:
            raise KeyboardInterrupt


def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, 4)).astype("float32"), rng.normal(size=(ROWS, 1)).astype("float32")


def a_model(optimizer="adam", seed=None, **compiled):
    fanin.utils.set_random_seed(1)
    layers = fanin.layers
    parts = [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.3, seed=seed), layers.Dense(1)]
    model = fanin.Sequential([fanin.Input((4,)), *parts])
    model.compile(fanin.optimizers.get(optimizer), "mse", **compiled)
    return model


def train(model, *callbacks, **more):
    x, y = rows()
    return model.fit(
        x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, validation_data=(x, y), callbacks=list(callbacks), **more
    )


def state_of(model):
    return [*model.get_weights(), *map(float, [model.optimizer.iterations, model.optimizer.learning_rate])]


def interrupted(folder, cut, make=a_model, **options):
    with pytest.raises(KeyboardInterrupt):
        train(make(), BackupAndRestore(folder, **options), cut)
    model = make()
    if os.path.exists(folder):  # else it was too early, and the second run is the first
        torch.rand(3)  # which need not draw the same numbers before
    history = train(model, BackupAndRestore(folder, **options))
    return model, history


def assert_same(found, expected):
    for one, other in zip(state_of(found), state_of(expected), strict=True):
        np.testing.assert_array_equal(one, other)


CUTS = [
    ("on_epoch_begin", 2, None),
    ("on_train_batch_end", 0, 3),
    ("on_train_batch_end", 2, 0),
    ("on_train_batch_end", 2, 4),
    ("on_test_begin", 1, None),
    ("on_epoch_end", 2, None),
]


@functools.cache
def unbroken(make):
    """The state that training ends with where nothing interrupts it."""
    model = make()
    train(model)
    return state_of(model)


def eager():
    return a_model(run_eagerly=True)


# Where training goes on does not depend on how steps run: compiled ones with the commonest `save_freq`, and in the next
# test.
@pytest.mark.parametrize(
    ("save_freq", "make"),
    [("epoch", a_model), *((batches, eager) for batches in (1, 2, 5, 7))],
)
@pytest.mark.parametrize("cut", CUTS)
def test_it_ends_with_the_same_bits(tmp_path, cut, save_freq, make):
    found, history = interrupted(tmp_path / "backup", PowerCut(*cut), make, save_freq=save_freq)
    for one, other in zip(state_of(found), unbroken(make), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not (tmp_path / "backup").exists()
    if save_freq == "epoch":
        first = cut[1] + (cut[0] == "on_epoch_end")
        assert history.epoch == [*range(first, EPOCHS)]


MAKES = {
    "eager": eager,
    "seeded dropout": lambda: a_model(seed=5),
    "accumulation": lambda: a_model(fanin.optimizers.Adam(gradient_accumulation_steps=3)),
    "averages": lambda: a_model(fanin.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5)),
    "schedule": lambda: a_model(fanin.optimizers.SGD(fanin.optimizers.schedules.ExponentialDecay(0.1, 2, 0.9))),
    "loss scale": lambda: a_model(fanin.optimizers.LossScaleOptimizer(fanin.optimizers.Adam())),
}


@pytest.mark.parametrize("save_freq", ["epoch", 3])
@pytest.mark.parametrize("kind", MAKES)
def test_whatever_has_a_state(tmp_path, kind, save_freq):
    found, _ = interrupted(tmp_path, PowerCut("on_train_batch_end", 2, 3), MAKES[kind], save_freq=save_freq)
    for one, other in zip(state_of(found), unbroken(MAKES[kind]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("save_freq", ["epoch", 3])
def test_a_dataloader_that_shuffles(tmp_path, save_freq):
    data = torch.utils.data.TensorDataset(*map(torch.from_numpy, rows()))

    def fit(model, *callbacks):
        loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
        model.fit(loader, epochs=EPOCHS, verbose=0, callbacks=list(callbacks))
        return model

    whole = fit(a_model())
    with pytest.raises(KeyboardInterrupt):
        fit(a_model(), BackupAndRestore(tmp_path, save_freq), PowerCut("on_train_batch_end", 1, 4))
    assert_same(fit(a_model(), BackupAndRestore(tmp_path, save_freq)), whole)


def test_what_other_callbacks_changed_before_it(tmp_path):
    """A learning rate that was reduced at the end of an epoch stays so."""
    reduce = {"monitor": "loss", "factor": 0.5, "patience": 1, "min_delta": 100.0}
    cut = PowerCut("on_epoch_begin", 3)
    model = a_model()
    with pytest.raises(KeyboardInterrupt):
        train(model, ReduceLROnPlateau(**reduce), BackupAndRestore(tmp_path), cut)
    found = a_model()
    history = train(found, BackupAndRestore(tmp_path), ReduceLROnPlateau(**reduce))
    assert history.history["learning_rate"] == [model.optimizer.learning_rate] == [np.float32(0.001 * 0.25)]


def test_it_runs_the_epochs_that_keras_runs(tmp_path):
    """Also where the first run was over, and its state was kept."""
    x, y = rows()

    def epochs_of(package, folder, **options):
        class Cut(package.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 2:
                    raise KeyboardInterrupt

        def fit(epochs, *more):
            model = package.Sequential([package.Input((4,)), package.layers.Dense(1)])
            model.compile("adam", "mse")
            backup = package.callbacks.BackupAndRestore(str(folder), **options)
            return model.fit(x, y, epochs=epochs, verbose=0, callbacks=[backup, *more]).epoch

        with pytest.raises(KeyboardInterrupt):
            fit(EPOCHS, Cut())
        return [fit(EPOCHS), fit(6), fit(6)], os.path.exists(folder)

    for number, options in enumerate(({}, {"delete_checkpoint": False}, {"double_checkpoint": True})):
        ours = epochs_of(fanin, tmp_path / f"ours{number}", **options)
        assert ours == epochs_of(keras, tmp_path / f"theirs{number}", **options)


def test_a_damaged_state_gives_way_to_the_one_before(tmp_path):
    cut = PowerCut("on_epoch_begin", 3)
    for double in (False, True):
        folder = tmp_path / str(double)
        with pytest.raises(KeyboardInterrupt):
            train(a_model(), BackupAndRestore(folder, double_checkpoint=double), cut)
        names = sorted(os.listdir(folder))
        assert names == ["2-0.weights.h5"] * double + ["3-0.weights.h5", "training_metadata.json"]
        path = folder / "3-0.weights.h5"
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(fanin.errors.CorruptError):
        train(a_model(), BackupAndRestore(tmp_path / "False"))
    whole, found = a_model(), a_model()
    train(whole)
    with pytest.warns(UserWarning, match="the state before the last"):
        history = train(found, BackupAndRestore(tmp_path / "True", double_checkpoint=True))
    assert history.epoch == [2, 3]
    assert_same(found, whole)


def test_a_kill_between_its_two_files_leaves_the_state_before(tmp_path, monkeypatch):
    def killed(source, path, replace=os.replace):
        if str(path).endswith(".json"):
            raise KeyboardInterrupt
        replace(source, path)

    with pytest.raises(KeyboardInterrupt):
        train(a_model(), BackupAndRestore(tmp_path), PowerCut("on_epoch_begin", 2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            train(a_model(), BackupAndRestore(tmp_path))
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
    whole, found = a_model(), a_model()
    train(whole)
    assert train(found, BackupAndRestore(tmp_path)).epoch == [2, 3]
    assert_same(found, whole)


def test_it_removes_only_what_it_wrote(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    train(a_model(), BackupAndRestore(tmp_path))
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("save_freq", [False, True, 0, -1, 2.0, "batch", None])
def test_another_save_freq_is_refused(save_freq):
    with pytest.raises(ValueError, match="save_freq must be 'epoch' or a number of batches"):
        BackupAndRestore("folder", save_freq)


def test_what_cannot_be_brought_back_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="backup_dir is empty"):
        BackupAndRestore("")
    model = a_model()
    model.compile(torch.optim.Adam(model.parameters()), "mse")
    with pytest.raises(ValueError, match=r"that of torch.optim's Adam would be lost"):
        train(model, BackupAndRestore(tmp_path))
    for text in ("", "{}", '{"epoch": 3, "batch": 0}', json.dumps({"states": [{"epoch": -1}]}), '{"states": [3]}'):
        (tmp_path / "training_metadata.json").write_text(text)
        with pytest.raises(fanin.errors.FormatError, match="Remove it to begin anew"):
            train(a_model(), BackupAndRestore(tmp_path))


def test_one_object_serves_again(tmp_path):
    """Nothing is left from the fit before."""
    backup = BackupAndRestore(tmp_path, save_freq=3)
    with pytest.raises(KeyboardInterrupt):
        train(a_model(), backup, PowerCut("on_train_batch_end", 1, 2))
    whole, found = a_model(), a_model()
    train(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(found, backup)
    assert_same(found, whole)
    assert train(found, backup).epoch == [0, 1, 2, 3]
