"""Regression on a table: the diabetes data, with raw columns that the model itself puts on one scale."""

import keras
import numpy as np
from keras import layers
from same_start import same_start
from sklearn.datasets import load_diabetes

x, y = load_diabetes(return_X_y=True, scaled=False)
x, y = x.astype("float32"), y.astype("float32")
order = np.random.default_rng(1).permutation(len(x))
x, y = x[order], y[order]
x_train, y_train, x_test, y_test = x[:352], y[:352], x[352:], y[352:]

# The first layer learns mean and variance of each column from the training rows.
normalizer = layers.Normalization(axis=-1)
normalizer.adapt(x_train)
first = normalizer(x_train[:3])

model = keras.Sequential(
    [
        keras.Input(shape=(10,)),
        normalizer,
        layers.Dense(64, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-3)),
        layers.Dense(32, activation="relu"),
        layers.Dense(1, bias_initializer=keras.initializers.Constant(150.0)),
    ],
    name="diabetes",
)
same_start(model)
model.summary()

schedule = keras.optimizers.schedules.ExponentialDecay(initial_learning_rate=0.02, decay_steps=100, decay_rate=0.9)
model.compile(
    optimizer=keras.optimizers.Adam(learning_rate=schedule),
    loss="mean_squared_error",
    metrics=["mae", keras.metrics.RootMeanSquaredError(name="rmse")],
)
early_stopping = keras.callbacks.EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)
history = model.fit(
    x_train,
    y_train,
    batch_size=32,
    epochs=40,
    validation_split=0.2,
    shuffle=False,
    verbose=0,
    callbacks=[early_stopping],
)
scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
predicted = model.predict(x_test, verbose=0)

STEPS = 9 * len(history.epoch)
RESULTS = {
    "normalizer mean": np.ravel(normalizer.mean),
    "normalizer variance": np.ravel(normalizer.variance),
    "normalized rows": first.detach().numpy(),
    "epochs until it stopped": len(history.history["loss"]),
    "best epoch": early_stopping.best_epoch,
    "history": history.history,
    "test": scores,
    "predicted": predicted,
    "parameters": model.count_params(),
    "learning rate": float(model.optimizer.learning_rate),
    "output shape": model.output_shape,
}
