"""Saving: the model in a file, opened again and compared."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from digits import split
from report import Chapter, Claim, Table, alone, code

import fanin
from fanin import Sequential
from fanin.constraints import MaxNorm
from fanin.layers import Dense
from fanin.regularizers import L2
from fanin.saving import load_model

KERAS = """
import sys, keras, numpy
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""


def make_model() -> Sequential:
    """A model with a penalty and a constraint, which belong into the file too."""
    model = Sequential()
    model.add(Dense(64, "relu", kernel_regularizer=L2(1e-4), input_shape=(64,)))
    model.add(Dense(10, "softmax", kernel_constraint=MaxNorm(3)))
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


def there_and_back(model: Sequential, file: Path) -> Sequential:
    """Save the model, and open the file."""
    model.save(file)
    return load_model(file)


def largest_difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Over all values; infinite where shapes differ."""
    if [a.shape for a in one] != [b.shape for b in other]:
        return np.inf
    return max(float(np.abs(a.astype("float64") - b).max()) for a, b in zip(one, other, strict=True))


def refused(file: Path) -> str:
    """The name of the error that opening a damaged copy raises; empty if it opens."""
    damaged = file.with_name("damaged.keras")
    damaged.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    try:
        load_model(damaged)
    except fanin.errors.FormatError as error:
        return type(error).__name__
    return ""


def predicted_by_keras(file: Path, x: np.ndarray) -> np.ndarray | None:
    """What Keras predicts with the same file, in a process of its own; None where Keras is not installed."""
    if importlib.util.find_spec("keras") is None:
        return None
    folder = file.parent
    np.save(folder / "x.npy", x)
    environment = os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", KERAS, str(file), str(folder / "x.npy"), str(folder / "y.npy")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Keras is installed, but cannot open {file.name}:\n{done.stderr}")
    return np.load(folder / "y.npy")


def run(quick: bool = False) -> Chapter:
    """Save, open, compare, go on."""
    x_train, x_test, y_train, _ = split()
    fanin.utils.set_random_seed(0)
    model = make_model()
    model.fit(x_train, y_train, epochs=2 if quick else 10, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "digits.keras"
        opened = there_and_back(model, file)
        size = file.stat().st_size
        with zipfile.ZipFile(file) as archive:
            parts = [[f"`{entry.filename}`", f"{entry.file_size:,}"] for entry in archive.infolist()]
        damaged = refused(file)
        by_keras = predicted_by_keras(file, x_test)
    predicted = model.predict(x_test, verbose=0)
    same = int((predicted == opened.predict(x_test, verbose=0)).sum())
    configs = json.dumps(model.get_config()) == json.dumps(opened.get_config())

    for each in (model, opened):  # with the optimizer's state, training goes on where it was
        each.fit(x_train, y_train, epochs=2, shuffle=False, verbose=0)
    apart = largest_difference(model.get_weights(), opened.get_weights())
    claims = [
        Claim(
            "saved and opened again, the model predicts the same, bit for bit",
            f"{same:,} of {predicted.size:,} values are equal",
            same == predicted.size,
        ),
        Claim(
            "penalty, constraint and all other arguments are as before", "yes" if configs else "they differ", configs
        ),
        Claim(
            "training goes on in both as if there had been no file, bit for bit",
            f"largest difference {apart:g} after 2 more epochs",
            apart == 0,
        ),
        Claim("half a file is refused", damaged or "it was opened", bool(damaged)),
    ]
    if by_keras is not None:
        difference = largest_difference([predicted], [by_keras])
        claims.append(
            Claim(
                "Keras opens the same file and predicts the same, within 0.00001",
                f"{difference:.1e}",
                difference <= 1e-5,
            )
        )
    return Chapter(
        "Saving and opening",
        [
            "`model.save` writes a `.keras` archive, a zip of JSON and numbers without any code in it: architecture, "
            "weights, how the model was compiled, and the optimizer's state. Keras reads the same file.",
        ],
        [
            code(make_model, there_and_back),
            Table(["part", "bytes"], parts, f"What is in the file of {size:,} bytes."),
        ],
        claims,
    )


if __name__ == "__main__":
    alone(run)
