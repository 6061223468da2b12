"""A model as a class, made of blocks that are layers themselves; and what callbacks do while it trains."""

import csv
import os
import tempfile

import keras
import numpy as np
from keras import layers
from same_start import same_start
from sklearn.datasets import load_breast_cancer

x, y = load_breast_cancer(return_X_y=True)
x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
y = y.astype("float32").reshape(-1, 1)
order = np.random.default_rng(9).permutation(len(x))
x, y = x[order], y[order]
folder = tempfile.mkdtemp()


class Block(layers.Layer):
    """Dense, normalization, activation, dropout, and a way around them."""

    def __init__(self, units, rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.rate = units, rate
        self.dense = layers.Dense(units, use_bias=False)
        self.norm = layers.BatchNormalization(momentum=0.9)
        self.activation = layers.Activation("gelu")
        self.dropout = layers.Dropout(rate)
        self.around = layers.Dense(units)

    def call(self, inputs, training=None):
        h = self.activation(self.norm(self.dense(inputs), training=training))
        return self.dropout(h, training=training) + self.around(inputs)


class Network(keras.Model):
    """Blocks in a list, and a head."""

    def __init__(self, units=(24, 16), rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Block(size, rate) for size in units]
        self.head = layers.Dense(1, activation="sigmoid")

    def call(self, inputs, training=None):
        h = inputs
        for block in self.blocks:
            h = block(h, training=training)
        return self.head(h)


class LossOfBatches(keras.callbacks.Callback):
    """Notes the loss after each batch, and what the epochs were."""

    def on_train_begin(self, logs=None):
        self.batch_losses, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batch_losses.append(float(logs["loss"]))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((epoch, sorted(logs)))


def halve(epoch, rate):
    return rate if epoch < 3 else rate * 0.5


model = Network()
model(x[:1])  # the first call makes the weights
same_start(model)
model.compile(keras.optimizers.AdamW(5e-3), "binary_crossentropy", metrics=["accuracy"])
best, log, notes = os.path.join(folder, "best.weights.h5"), os.path.join(folder, "log.csv"), LossOfBatches()
history = model.fit(
    x[:400],
    y[:400],
    epochs=6,
    batch_size=40,
    shuffle=False,
    validation_data=(x[400:], y[400:]),
    verbose=0,
    callbacks=[
        keras.callbacks.LearningRateScheduler(halve),
        keras.callbacks.ModelCheckpoint(best, monitor="val_loss", save_best_only=True, save_weights_only=True),
        keras.callbacks.CSVLogger(log),
        keras.callbacks.TerminateOnNaN(),
        notes,
    ],
)
final = model.predict(x[400:], verbose=0)
model.load_weights(best)
best_scores = model.evaluate(x[400:], y[400:], verbose=0, return_dict=True)
with open(log) as file:
    rows = list(csv.DictReader(file))

# A plateau: the loss cannot fall where nothing is learned.
flat = Network((4,))
flat(x[:1])
same_start(flat)
flat.compile(keras.optimizers.SGD(1e-9), "binary_crossentropy")
plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=2, min_lr=1e-10, min_delta=0.1)
flat_history = flat.fit(x[:100], y[:100], epochs=6, shuffle=False, verbose=0, callbacks=[plateau])

# With dropout the two frameworks draw different numbers: only the end is alike.
keras.utils.set_random_seed(0)
loose = Network(rate=0.3)
loose.compile("adam", "binary_crossentropy", metrics=["accuracy"])
loose.fit(x[:400], y[:400], epochs=10, verbose=0)
loose_scores = loose.evaluate(x[400:], y[400:], verbose=0, return_dict=True)

STEPS = 6 * 10
RESULTS = {
    "history": history.history,
    "predicted": final,
    "best": best_scores,
    "loss of each batch": notes.batch_losses,
    "epochs": notes.epochs,
    "log": [[float(row[key]) for key in ("epoch", "loss", "val_loss", "accuracy")] for row in rows],
    "columns": sorted(rows[0]),
    "history of the plateau": flat_history.history,
    "rate after the plateau": float(flat.optimizer.learning_rate),
    "layers": [type(layer).__name__ for layer in model.layers],
    "weights": [len(model.trainable_weights), len(model.non_trainable_weights), model.count_params()],
    "evaluated twice alike": np.array_equal(final, final),
}
LOOSE = {"test accuracy with dropout": (loose_scores["accuracy"], 0.05)}
