"""Callbacks are compared with real Keras's, on its torch backend."""

import os
from types import SimpleNamespace

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import pytest

import fanin


@pytest.fixture
def data():
    """x (12, 4), y (12, 1)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 4)).astype("float32"), rng.normal(size=(12, 1)).astype("float32")


@pytest.fixture
def model():
    """A model with one Dense, compiled; arguments of `compile` can be given."""

    def make(**compiled):
        made = fanin.Sequential([fanin.Input((4,)), fanin.layers.Dense(1, name="dense")], name="net")
        made.compile(**{"optimizer": fanin.optimizers.SGD(0.1), "loss": "mse", "metrics": ["mae"], **compiled})
        return made

    return make


@pytest.fixture
def drive():
    """Lead a callback through training with given numbers for each epoch, the same way for Keras's and ours."""

    def run(callback, epochs, model=None, optimizer=None):
        model = model or SimpleNamespace(optimizer=optimizer, stop_training=False)
        callback.set_params({"epochs": len(epochs), "steps": 1, "verbose": 0})
        callback.set_model(model)
        callback.on_train_begin({})
        for epoch, logs in enumerate(epochs):
            callback.on_epoch_begin(epoch, {})
            model.epoch = epoch
            callback.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        callback.on_train_end({})
        return callback

    return run
