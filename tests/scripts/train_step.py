"""What `fit` does with one batch, written anew: `train_step` and `test_step` of a model of one's own."""

import keras
import numpy as np
import torch
from keras import layers
from same_start import same_start

rng = np.random.default_rng(11)
x = rng.normal(size=(800, 32)).astype("float32")
y = (x[:, :4].sum(axis=1, keepdims=True) + 0.1 * rng.normal(size=(800, 1))).astype("float32")
row_weights = rng.uniform(0.5, 2.0, 800).astype("float32")


class CustomModel(keras.Model):
    """The usual step, by hand, with or without weights for the rows."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=y_pred, sample_weight=sample_weight)
        loss.backward()
        trainable_weights = list(self.trainable_weights)
        gradients = [v.value.grad for v in trainable_weights]
        with torch.no_grad():
            self.optimizer.apply(gradients, trainable_weights)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred, sample_weight=sample_weight)
        return {m.name: m.result() for m in self.metrics}

    def test_step(self, data):
        x, y = data
        y_pred = self(x, training=False)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


class OwnMetrics(keras.Model):
    """No loss at `compile`: the model has its own, and its own metrics."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.mae_metric = keras.metrics.MeanAbsoluteError(name="mae")
        self.loss_fn = keras.losses.MeanSquaredError()

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.loss_fn(y, y_pred)
        loss.backward()
        weights = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in weights], weights)
        self.loss_tracker.update_state(loss)
        self.mae_metric.update_state(y, y_pred)
        return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}

    @property
    def metrics(self):
        return [self.loss_tracker, self.mae_metric]


class Penalized(keras.Model):
    """Only the loss is another one; the step stays."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        usual = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        return usual + 0.01 * torch.mean(y_pred**2)


def train(kind, compile_with, weighted=False):
    inputs = keras.Input(shape=(32,))
    hidden = layers.Dense(16, activation="relu", kernel_regularizer="l2")(inputs)
    model = kind(inputs, layers.Dense(1)(hidden))
    same_start(model)
    model.compile(**compile_with)
    rows = {"sample_weight": row_weights[:640]} if weighted else {}
    return model, model.fit(x[:640], y[:640], epochs=3, shuffle=False, verbose=0, **rows).history


usual, usual_history = train(CustomModel, {"optimizer": keras.optimizers.Adam(1e-2), "loss": "mse", "metrics": ["mae"]})
scores = usual.evaluate(x[640:], y[640:], verbose=0, return_dict=True)
_, weighted_history = train(
    CustomModel, {"optimizer": "adam", "loss": "mse", "weighted_metrics": ["mae"]}, weighted=True
)
own, own_history = train(OwnMetrics, {"optimizer": keras.optimizers.Adam(1e-2)})
penalized, penalized_history = train(Penalized, {"optimizer": keras.optimizers.SGD(0.05), "loss": "mse"})

STEPS = 3 * 20
RESULTS = {
    "history": usual_history,
    "test": scores,
    "predicted": usual.predict(x[640:], verbose=0),
    "history with weights": weighted_history,
    "history with own metrics": own_history,
    "history with a penalty": penalized_history,
    "penalized test": penalized.evaluate(x[640:], y[640:], verbose=0),
    "predicted by the second": own.predict(x[640:], verbose=0),
}
