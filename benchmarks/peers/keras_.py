"""Keras on the backend that KERAS_BACKEND names: `model.fit` and `model.predict`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras

from benchmarks.cases import EPSILON, RATE, Case, data, weights
from benchmarks.clock import Record, between


def model(case: Case) -> Any:
    """Dense layers under the case's dtype policy."""
    policy = "mixed_bfloat16" if case.dtype == "bfloat16" else None
    *hidden, last = case.widths[1:]
    layers = [keras.layers.Dense(units, "relu", dtype=policy) for units in hidden]
    made = keras.Sequential([keras.Input(case.widths[:1]), *layers, keras.layers.Dense(last, dtype=policy)])
    made.set_weights([part for pair in weights(case) for part in pair])
    return made


def train(case: Case) -> Record:
    """One `fit`, its epochs timed by a callback."""
    made = model(case)
    made.compile(
        keras.optimizers.Adam(RATE, epsilon=EPSILON), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    x, y = data(case)
    done = made.fit(x, y, batch_size=case.batch, epochs=case.epochs + 1, verbose=0, callbacks=[clock])
    return between(ends, done.history["loss"], case)


def predict(case: Case) -> Callable[[Any], Any]:
    """`model.predict` in one batch."""
    made = model(case)
    return lambda rows: made.predict(rows, batch_size=case.batch, verbose=0)
