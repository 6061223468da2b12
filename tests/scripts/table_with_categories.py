"""Classification of a table with columns of numbers and of categories: one input for each column, by name."""

import keras
import numpy as np
import torch
from keras import layers
from same_start import same_start
from torch.utils.data import DataLoader, Dataset

rng = np.random.default_rng(7)
ROWS = 600
table = {
    "age": rng.integers(18, 80, (ROWS, 1)).astype("float32"),
    "income": rng.lognormal(10, 0.5, (ROWS, 1)).astype("float32"),
    "city": rng.choice(["Bergen", "Oslo", "Tromso", "Voss"], (ROWS, 1)),
    "job": rng.integers(0, 9, (ROWS, 1)),
}
risk = 0.05 * (table["age"] - 50) + (table["city"] == "Oslo") - 1.5 * (table["job"] % 3 == 0)
target = (risk + rng.logistic(0, 0.5, (ROWS, 1)) > 0).astype("float32")

# Strings become numbers; 0 is kept for what was never seen.
cities = sorted(set(table["city"].ravel()))
table["city"] = np.searchsorted(cities, table["city"]) + 1
train = {name: column[:480] for name, column in table.items()}
test = {name: column[480:] for name, column in table.items()}

inputs = {
    "age": keras.Input(shape=(1,), name="age"),
    "income": keras.Input(shape=(1,), name="income"),
    "city": keras.Input(shape=(1,), name="city", dtype="int64"),
    "job": keras.Input(shape=(1,), name="job", dtype="int64"),
}
features = []
for name in ("age", "income"):
    scale = layers.Normalization(name=f"{name}_scale")
    scale.adapt(train[name])
    features.append(scale(inputs[name]))
for name, size in (("city", len(cities) + 1), ("job", 9)):
    vector = layers.Embedding(size, 3, name=f"{name}_vectors")(inputs[name])
    features.append(layers.Flatten()(vector))
hidden = layers.Dense(16, activation="relu", name="hidden")(layers.concatenate(features))
output = layers.Dense(1, activation="sigmoid", name="risk")(hidden)
model = keras.Model(inputs, output, name="risk_model")
same_start(model)


class Caught(keras.metrics.Metric):
    """The share of the rows at risk that were found."""

    def __init__(self, name="caught", **kwargs):
        super().__init__(name=name, **kwargs)
        self.found = self.add_variable(shape=(), initializer="zeros", name="found")
        self.rows = self.add_variable(shape=(), initializer="zeros", name="rows")

    def update_state(self, y_true, y_pred, sample_weight=None):
        at_risk = y_true > 0.5
        self.found.assign(self.found + (at_risk & (y_pred > 0.5)).sum())
        self.rows.assign_add(at_risk.sum())

    def result(self):
        return self.found.value / self.rows.value


model.compile(
    optimizer="adam",
    loss="binary_crossentropy",
    metrics=["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="precision"), "recall", Caught()],
)
history = model.fit(
    train,
    target[:480],
    epochs=12,
    batch_size=40,
    shuffle=False,
    validation_data=(test, target[480:]),
    class_weight={0: 1.0, 1: 1.5},
    verbose=0,
)


class Rows(Dataset):
    """The test rows one by one, as torch's loaders want them."""

    def __len__(self):
        return 120

    def __getitem__(self, row):
        return {name: column[row] for name, column in test.items()}, target[480 + row]


from_loader = model.evaluate(DataLoader(Rows(), batch_size=50), verbose=0, return_dict=True)
one = {
    name: torch.as_tensor(np.array([[value]]))
    for name, value in [("age", 33.0), ("income", 2e4), ("city", 2), ("job", 4)]
}

STEPS = 12 * 12
RESULTS = {
    "history": history.history,
    "evaluated from a loader": from_loader,
    "predicted": model.predict(test, verbose=0),
    "one row": model(one).detach().numpy(),
    "city vectors": model.get_layer("city_vectors").get_weights()[0],
    "layers": [layer.name for layer in model.layers if layer.name in ("age_scale", "city_vectors", "hidden", "risk")],
    "inputs": sorted(str(tensor.name) for tensor in model.inputs),
    "parameters": model.count_params(),
}
