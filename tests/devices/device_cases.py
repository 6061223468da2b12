"""Small models and data for tests on the second device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fanin
from fanin import layers, losses

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(100, 8)).astype("float32")
Y = RANDOM.integers(0, 3, 100)
LOGITS = losses.SparseCategoricalCrossentropy(from_logits=True)


def model(*inner: Callable[[], layers.Layer]) -> fanin.Sequential:
    """8-16-3 with these layers inside, always with the same weights."""
    fanin.utils.set_random_seed(0)
    parts = [layers.Dense(16, activation="relu"), *(make() for make in inner), layers.Dense(3)]
    return fanin.Sequential([layers.Input((8,)), *parts])


def trained(
    device: str, optimizer: Callable[[Any], Any], inner: Sequence[Callable[[], layers.Layer]] = (), **options: Any
) -> tuple[list[float], Any]:
    """What training on a device gives: losses, metrics and outputs in one list; and the model."""
    made = model(*inner).to(device)
    made.compile(optimizer(made), LOGITS, metrics=["accuracy"])
    history = made.fit(X, Y, epochs=2, batch_size=32, shuffle=False, verbose=0, **options).history
    numbers = [value for values in history.values() for value in values]
    return [*numbers, *made.evaluate(X, Y, verbose=0), *made.predict(X, verbose=0).ravel().tolist()], made
