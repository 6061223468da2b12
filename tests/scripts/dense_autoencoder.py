"""A dense autoencoder on digits: encoder and decoder are models of their own that share their layers with the whole."""

import os
import tempfile

import keras
import numpy as np
from keras import layers, regularizers
from same_start import same_start
from sklearn.datasets import load_digits

x, labels = load_digits(return_X_y=True)
x = (x / 16.0).astype("float32")
x_train, x_test = x[:1500], x[1500:]
rng = np.random.default_rng(0)
noisy_train = np.clip(x_train + 0.2 * rng.normal(size=x_train.shape), 0.0, 1.0).astype("float32")
noisy_test = np.clip(x_test + 0.2 * rng.normal(size=x_test.shape), 0.0, 1.0).astype("float32")

CODE = 16
image = keras.Input(shape=(64,), name="image")
h = layers.Dense(48, activation="relu")(image)
code = layers.Dense(CODE, activation="relu", activity_regularizer=regularizers.L1(1e-4), name="code")(h)
encoder = keras.Model(image, code, name="encoder")

code_input = keras.Input(shape=(CODE,), name="code_input")
h = layers.Dense(48, activation="relu")(code_input)
decoder = keras.Model(code_input, layers.Dense(64, activation="sigmoid")(h), name="decoder")

autoencoder = keras.Model(image, decoder(encoder(image)), name="autoencoder")
same_start(autoencoder)
lines = []
autoencoder.summary(print_fn=lambda line, **_: lines.append(line))
encoder_shape = encoder.predict(x_test[:2], verbose=0).shape

autoencoder.compile(optimizer=keras.optimizers.Adam(3e-3), loss="binary_crossentropy")
history = autoencoder.fit(
    noisy_train, x_train, epochs=10, batch_size=100, shuffle=False, validation_data=(noisy_test, x_test), verbose=0
)

# The parts have learned with the whole.
codes = encoder.predict(x_test, verbose=0)
decoded = decoder.predict(codes, verbose=0)
whole = autoencoder.predict(x_test, verbose=0)

# The same layers in another model: decode the mean of two codes.
first, second = keras.Input(shape=(64,)), keras.Input(shape=(64,))
between = decoder(layers.average([encoder(first), encoder(second)]))
blend = keras.Model([first, second], between)
blended = blend.predict([x_test[:5], x_test[5:10]], verbose=0)

twin = keras.models.clone_model(encoder)
twin.set_weights(encoder.get_weights())
path = os.path.join(tempfile.mkdtemp(), "autoencoder.keras")
autoencoder.save(path)
loaded = keras.saving.load_model(path)

STEPS = 10 * 15
RESULTS = {
    "history": history.history,
    "codes": codes,
    "decoded": decoded,
    "decoder after encoder is the whole": float(np.abs(decoded - whole).max()) < 1e-5,
    "blended": blended,
    "codes of the clone": twin.predict(x_test, verbose=0),
    "from the file": loaded.predict(x_test, verbose=0),
    "evaluated from the file": loaded.evaluate(noisy_test, x_test, verbose=0),
    "layers": [layer.name for layer in autoencoder.layers],
    "layers of the file": [layer.name for layer in loaded.get_layer("encoder").layers if layer.name == "code"],
    "the summary names the parts": all(any(part in line for line in lines) for part in ("encoder", "decoder")),
    "parameters": autoencoder.count_params(),
    "shapes": [encoder_shape, decoder.output_shape, autoencoder.input_shape],
}
