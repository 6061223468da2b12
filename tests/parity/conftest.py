"""Parity tests run against real Keras, on its torch backend."""

import os

os.environ["KERAS_BACKEND"] = "torch"
