"""Short texts as numbers of words, padded with 0; masks say where a text ends, weights how much a row counts."""

import json

import keras
import numpy as np
import torch
from keras import layers
from same_start import same_start

TEXTS, LENGTH, WORDS = 480, 12, 50
rng = np.random.default_rng(21)
lengths = rng.integers(1, LENGTH + 1, TEXTS)
tokens = np.where(np.arange(LENGTH) < lengths[:, None], rng.integers(1, WORDS, (TEXTS, LENGTH)), 0)
share = ((tokens > 0) & (tokens < 12)).sum(axis=1) / lengths
labels = np.digitize(share, [0.1, 0.3])
weights = rng.uniform(0.2, 1.8, TEXTS).astype("float32")


@keras.saving.register_keras_serializable(package="tokens")
class MaskedMean(layers.Layer):
    """The mean over the steps that the mask keeps: (B, T, D) -> (B, D)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if mask is None:
            return inputs.mean(axis=1)
        kept = mask.to(inputs.dtype)[..., None]
        return (inputs * kept).sum(axis=1) / kept.sum(axis=1).clamp(min=1.0)

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2])


def classifier():
    inputs = keras.Input(shape=(LENGTH,), dtype="int64", name="tokens")
    vectors = layers.Embedding(WORDS, 8, mask_zero=True, name="vectors")(inputs)
    hidden = layers.Dense(8, activation="relu", name="word")(vectors)
    text = MaskedMean(name="text")(hidden)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="label")(text), name="texts")
    same_start(model)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.02, 120)),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        weighted_metrics=[keras.metrics.SparseCategoricalCrossentropy(name="weighted")],
    )
    return model


settings = {"epochs": 10, "batch_size": 40, "shuffle": False, "verbose": 0}
by_row, by_class = classifier(), classifier()
row_history = by_row.fit(tokens[:400], labels[:400], sample_weight=weights[:400], validation_split=0.1, **settings)
class_history = by_class.fit(tokens[:400], labels[:400], class_weight={0: 2.0, 1: 1.0, 2: 0.5}, **settings)
scores = by_row.evaluate(tokens[400:], labels[400:], sample_weight=weights[400:], verbose=0, return_dict=True)
longer = np.concatenate([tokens[400:], np.zeros((80, 3), tokens.dtype)], axis=1)
padded = MaskedMean()(by_row.get_layer("word")(by_row.get_layer("vectors")(torch.as_tensor(longer))))
mask = by_row.get_layer("vectors").compute_mask(torch.as_tensor(tokens[:2]))

twin = keras.models.clone_model(by_row)
twin.set_weights(by_row.get_weights())
described = json.loads(by_row.to_json())
rebuilt = keras.models.model_from_json(by_row.to_json())
rebuilt.set_weights(by_row.get_weights())

# Series of numbers, where -1 says that nothing was measured: one answer for each step, and a mask in the loss.
series = rng.normal(size=(200, 6, 2)).astype("float32")
answers = series.sum(axis=-1, keepdims=True)
series[np.arange(6) >= rng.integers(2, 7, 200)[:, None]] = -1.0
stepwise = keras.Sequential(
    [keras.Input((6, 2)), layers.Masking(mask_value=-1.0), layers.Dense(8, "tanh"), layers.Dense(1)]
)
same_start(stepwise)
stepwise.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"])
step_history = stepwise.fit(series, answers, epochs=5, batch_size=20, shuffle=False, verbose=0)

STEPS = 10 * 10
RESULTS = {
    "history with weights for rows": row_history.history,
    "history with weights for classes": class_history.history,
    "test": scores,
    "mask": mask.numpy(),
    "means with more padding": padded.detach().numpy(),
    "predicted": by_row.predict(tokens[400:], verbose=0),
    "predicted by the clone": twin.predict(tokens[400:], verbose=0),
    "predicted from json": rebuilt.predict(tokens[400:], verbose=0),
    "json": [layer["class_name"] for layer in described["config"]["layers"] if layer["class_name"] != "NotEqual"],
    "history of steps": step_history.history,
    "predicted steps": stepwise.predict(series[:4], verbose=0),
}
