"""Which way a number should go: by mode, by the metric itself, and a clear error where nothing says so."""

import keras
import numpy as np
import pytest

import fanin
from fanin.callbacks import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from fanin.callbacks.monitor import MonitorCallback


def monitor(name="val_loss", mode="auto", min_delta=0.0, directions=None):
    made = MonitorCallback(name, mode, min_delta)
    made.set_params({"directions": directions or {}})
    return made


@pytest.mark.parametrize("metric", ["accuracy", "AUC", "mse", "mae", "binary_crossentropy", "Precision"])
def test_metrics_go_the_way_that_keras_says(metric):
    """Keras's direction is read off its own callback, after `fit` has told it the metrics of the model."""
    x = np.array([[0.0], [1.0]], "float32")
    found = []
    for library in (keras, fanin):
        model = library.Sequential([library.Input((1,)), library.layers.Dense(1, "sigmoid")])
        model.compile("sgd", "binary_crossentropy", metrics=[metric])
        callback = library.callbacks.ReduceLROnPlateau(metric)
        model.fit(x, x, callbacks=[callback], verbose=0)
        better = callback._is_improvement if library is keras else callback.is_better
        found.append("max" if better(1.0, 0.0) else "min")
    assert found[0] == found[1]


def test_a_mode_wins_over_the_metric():
    assert monitor("val_acc", "min", directions={"val_acc": "max"}).is_better(1.0, 2.0)
    assert monitor("val_acc", "auto", directions={"val_acc": "max"}).is_better(2.0, 1.0)
    assert monitor("val_loss", "max").is_better(2.0, 1.0)
    assert monitor("loss").is_better(1.0, 2.0)


@pytest.mark.parametrize(("mode", "sign"), [("min", -1), ("max", 1)])
def test_better_means_by_more_than_min_delta(mode, sign):
    one = monitor(mode=mode, min_delta=-0.5)  # its sign does not count
    assert not one.is_better(sign * 0.5, 0.0)
    assert one.is_better(sign * 0.75, 0.0)
    assert one.is_better(-sign * 9.0, None)


@pytest.mark.parametrize("kind", [EarlyStopping, ReduceLROnPlateau])
def test_a_metric_that_does_not_say_needs_a_mode(model, data, kind):
    def score(y_true, y_pred):
        return (y_true - y_pred).abs().mean(-1)

    with pytest.raises(ValueError, match=rf"{kind.__name__}: nothing says whether 'val_score' should grow or shrink"):
        model(metrics=[score]).fit(*data, validation_data=data, callbacks=kind("val_score"), verbose=0)
    model(metrics=[score]).fit(*data, validation_data=data, callbacks=kind("val_score", mode="min"), verbose=0)


def test_a_missing_number_warns_and_lists_what_there_is(model, data, tmp_path):
    best = ModelCheckpoint(tmp_path / "a.keras", save_best_only=True)
    for callback in (EarlyStopping(), ReduceLROnPlateau()):
        with pytest.warns(UserWarning, match=rf"{type(callback).__name__} looks at 'val_loss', .* give: loss, mae"):
            model().fit(*data, callbacks=callback, verbose=0)
    with pytest.warns(UserWarning, match="ModelCheckpoint looks at 'val_loss', .* give: loss, mae"):
        model().fit(*data, callbacks=best, verbose=0)
    assert (tmp_path / "a.keras").exists()  # as in Keras, it saves all the same


@pytest.mark.parametrize("kind", [EarlyStopping, ReduceLROnPlateau, lambda **mode: ModelCheckpoint("a.keras", **mode)])
def test_another_mode_is_refused(kind):
    with pytest.raises(ValueError, match="mode must be 'auto', 'min' or 'max', found 'up'"):
        kind(mode="up")
