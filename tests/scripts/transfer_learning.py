"""A network learns eight digits, and its layers then help to learn the other two from few examples."""

import keras
import numpy as np
from keras import layers
from same_start import same_start
from sklearn.datasets import load_digits

x, y = load_digits(return_X_y=True)
x = (x / 16.0).astype("float32")
old, new = y < 8, y >= 8
x_old, y_old = x[old], y[old]
x_new, y_new = x[new], (y[new] - 8).astype("float32")

source = keras.Sequential(
    [
        keras.Input(shape=(64,)),
        layers.Dense(48, activation="relu", name="edges"),
        layers.BatchNormalization(name="norm"),
        layers.Dense(24, activation="relu", name="strokes"),
        layers.Dense(8, activation="softmax", name="old_digits"),
    ]
)
same_start(source)
source.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
source_history = source.fit(x_old, y_old, epochs=4, batch_size=64, shuffle=False, verbose=0)

# Features from the middle of a trained network.
extractor = keras.Model(inputs=source.inputs, outputs=source.get_layer("strokes").output)
features = extractor.predict(x_new[:10], verbose=0)
all_features = keras.Model(inputs=source.inputs, outputs=[layer.output for layer in source.layers])
shapes = [part.shape for part in all_features.predict(x_new[:2], verbose=0)]

# Take all but the last layer, and freeze it.
base = keras.Sequential([keras.Input(shape=(64,)), *source.layers[:-1]], name="base")
base.trainable = False
frozen = [len(base.trainable_weights), len(base.non_trainable_weights)]
before = [np.copy(weight) for weight in base.get_weights()]

inputs = keras.Input(shape=(64,))
h = base(inputs, training=False)
h = layers.Dropout(0.0)(h)
outputs = layers.Dense(1, name="new_digits")(h)
model = keras.Model(inputs, outputs)
head = model.get_layer("new_digits")
head.set_weights([np.random.default_rng(2).normal(0, 0.2, (24, 1)), np.zeros(1)])
trainable_at_first = [weight.shape for weight in model.trainable_weights]
model.compile(
    optimizer=keras.optimizers.Adam(1e-2),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
)
head_history = model.fit(x_new[:100], y_new[:100], epochs=5, batch_size=20, shuffle=False, verbose=0)
unchanged = all(np.array_equal(a, b) for a, b in zip(before, base.get_weights(), strict=True))

# Fine-tuning: thaw most of it, compile again with a low rate. A frozen normalization keeps its statistics.
base.trainable = True
base.get_layer("edges").trainable = base.get_layer("norm").trainable = False
model.compile(
    optimizer=keras.optimizers.Adam(1e-3),
    loss=keras.losses.BinaryCrossentropy(from_logits=True),
    metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
)
tuned_history = model.fit(x_new[:100], y_new[:100], epochs=3, batch_size=20, shuffle=False, verbose=0)
scores = model.evaluate(x_new[100:], y_new[100:], verbose=0, return_dict=True)
edges_unchanged = np.array_equal(before[0], base.get_layer("edges").get_weights()[0])

STEPS = 4 * 23 + 5 * 5 + 3 * 5
RESULTS = {
    "history of the source": source_history.history,
    "trainable and frozen weights of the base": frozen,
    "trained at first": [tuple(shape) for shape in trainable_at_first],
    "history of the head": head_history.history,
    "the base stayed": unchanged,
    "history of fine-tuning": tuned_history.history,
    "the first layer stayed": edges_unchanged,
    "statistics of the base": base.get_layer("norm").get_weights()[2:],
    "test": scores,
    "features": features,
    "shapes of all features": shapes,
    "shapes of the head": [weight.shape for weight in head.get_weights()],
}
