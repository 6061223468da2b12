"""CSVLogger writes the text that Keras's writes, and loses nothing."""

import csv

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin.callbacks import Callback, CSVLogger

SPECIAL = ["a,b", [1, 2], [[1], [2, 3]], (), np.array([0.5, 1.5]), np.float32(0.1), np.array(2.0)]
VALUES = st.floats() | st.integers() | st.sampled_from(SPECIAL)
LOGS = st.lists(st.dictionaries(st.sampled_from(["loss", "acc", "lr"]), VALUES, min_size=1), min_size=1, max_size=4)


@settings(
    derandomize=True, deadline=None, phases=[Phase.generate], max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(logs=LOGS, validation=st.booleans(), separator=st.sampled_from([",", ";", "\t"]), append=st.booleans())
def test_the_text_is_that_of_keras(drive, tmp_path, logs, validation, separator, append):
    names = logs[0].keys()
    logs = [{name: each[name] for name in names & each.keys()} for each in logs]
    if validation:
        logs = [{**each, **{f"val_{name}": value for name, value in each.items()}} for each in logs]
    texts = []
    for library in (keras, fanin):
        path = tmp_path / f"{library.__name__}.csv"
        path.unlink(missing_ok=True)
        for _ in range(2):
            drive(library.callbacks.CSVLogger(path, separator, append), [dict(each) for each in logs])
        texts.append(path.read_bytes())
    assert texts[0] == texts[1]


def test_in_fit(model, data, tmp_path):
    path = tmp_path / "log.csv"
    history = model().fit(*data, epochs=3, validation_data=data, callbacks=CSVLogger(path), verbose=0)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row.pop("epoch")) for row in rows] == [0, 1, 2]
    assert {name: [float(row[name]) for row in rows] for name in rows[0]} == history.history


class Interrupt(Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_an_interrupt_loses_no_row(model, data, tmp_path):
    path = tmp_path / "log.csv"
    log = CSVLogger(path, append=True)
    with pytest.raises(KeyboardInterrupt):
        model().fit(*data, epochs=4, callbacks=[log, Interrupt()], verbose=0)
    assert [line.split(",")[0] for line in path.read_text().split()] == ["epoch", "0", "1"]
    model().fit(*data, epochs=4, initial_epoch=2, callbacks=log, verbose=0)
    assert [line.split(",")[0] for line in path.read_text().split()] == ["epoch", "0", "1", "2", "3"]


def test_appended_rows_follow_the_columns_of_the_file(drive, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,mae,loss\r\n0,0.5,1.5\r\n")
    with pytest.warns(UserWarning, match=r"log.csv' has no column for learning_rate, val_loss\."):
        drive(CSVLogger(path, append=True), [{"loss": 2.5, "learning_rate": 0.1, "val_loss": 3.0}])
    assert path.read_text().split() == ["epoch,mae,loss", "0,0.5,1.5", "0,NA,2.5"]


def test_wrong_arguments(model, data, tmp_path):
    for separator in ("", ", ", 3):
        with pytest.raises(ValueError, match="separator must be one character"):
            CSVLogger("log.csv", separator)
    with pytest.raises(FileNotFoundError, match="missing"):
        model().fit(*data, callbacks=CSVLogger(tmp_path / "missing" / "log.csv"), verbose=0)
    path = tmp_path / "log.csv"
    path.write_text("epoch;loss\n")
    with pytest.raises(ValueError, match=r"cannot append to .* separated by ',', to be 'epoch', found 'epoch;loss'"):
        model().fit(*data, callbacks=CSVLogger(path, append=True), verbose=0)
    assert path.read_text() == "epoch;loss\n"
