"""Layers, an activation, a regularizer and an initializer of one's own; saved and loaded."""

import os
import tempfile

import keras
import numpy as np
import torch
from keras import layers
from same_start import same_start
from sklearn.datasets import load_wine

x, y = load_wine(return_X_y=True)
x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
order = np.random.default_rng(5).permutation(len(x))
x, y = x[order], y[order]


@keras.saving.register_keras_serializable(package="cellar")
def bent(x):
    """A soft hinge."""
    return (torch.sqrt(x * x + 1.0) - 1.0) / 2.0 + x


@keras.saving.register_keras_serializable(package="cellar")
class Closeness(keras.regularizers.Regularizer):
    """Penalizes weights that are far from `center`."""

    def __init__(self, center=0.0, strength=0.01):
        self.center, self.strength = center, strength

    def __call__(self, w):
        return self.strength * ((w - self.center) ** 2).sum()

    def get_config(self):
        return {"center": self.center, "strength": self.strength}


@keras.saving.register_keras_serializable(package="cellar")
class Linear(layers.Layer):
    """y = scale * (x @ w) + b"""

    def __init__(self, units=32, regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.regularizer = keras.regularizers.get(regularizer)

    def build(self, input_shape):
        self.w = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer="random_normal",
            regularizer=self.regularizer,
            trainable=True,
            name="w",
        )
        self.b = self.add_weight(shape=(self.units,), initializer="zeros", trainable=True, name="b")
        self.scale = self.add_weight(shape=(), initializer="ones", trainable=False, name="scale")

    def call(self, inputs):
        return self.scale * torch.matmul(inputs, self.w) + self.b

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        config = super().get_config()
        config.update({"units": self.units, "regularizer": keras.regularizers.serialize(self.regularizer)})
        return config


@keras.saving.register_keras_serializable(package="cellar")
class Quiet(layers.Layer):
    """Passes on what it gets, charges for large values, and remembers the sum of all that it saw while training."""

    def __init__(self, rate=1e-2, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.total = self.add_weight(shape=(), initializer="zeros", trainable=False, name="total")

    def call(self, inputs, training=False):
        self.add_loss(self.rate * torch.mean(torch.square(inputs)))
        if training:
            self.total.assign_add(inputs.detach().sum())
        return inputs

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


model = keras.Sequential(
    [
        keras.Input((13,)),
        Linear(20, regularizer=Closeness(0.0, 0.001)),
        layers.Activation(bent),
        Quiet(0.05),
        Linear(12),
        layers.Dense(3, activation="softmax", activity_regularizer=keras.regularizers.L2(1e-3)),
    ]
)
same_start(model)
model.layers[0].scale.assign(torch.tensor(0.5))
model.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(
    x[:128], y[:128], epochs=10, batch_size=16, shuffle=False, validation_data=(x[128:], y[128:]), verbose=0
)

path = os.path.join(tempfile.mkdtemp(), "wine.keras")
model.save(path)
loaded = keras.saving.load_model(path)
again = keras.Sequential.from_config(model.get_config())
again.set_weights(model.get_weights())
config = model.layers[0].get_config()
layer, regularizer = Linear.from_config(config), config["regularizer"]
model(torch.as_tensor(x[:16]))
penalties = [float(loss.detach()) for loss in model.losses]

STEPS = 10 * 8
RESULTS = {
    "history": history.history,
    "predicted": model.predict(x[128:], verbose=0),
    "from the file": loaded.predict(x[128:], verbose=0),
    "from the config": again.predict(x[128:], verbose=0),
    "evaluated from the file": loaded.evaluate(x[128:], y[128:], verbose=0),
    "weights": [weight.shape for weight in model.get_weights()],
    "trainable": [len(model.trainable_weights), len(model.non_trainable_weights)],
    "losses of one call": sorted(penalties),
    "config of the regularizer": [regularizer["registered_name"], regularizer["config"]],
    "layer from its config": [layer.units, layer.regularizer.strength],
    "total while training": model.layers[2].get_weights()[0],
    "registered name": keras.saving.get_registered_name(Linear),
}
