"""Two inputs, two outputs: how urgent a ticket is, and which department it belongs to."""

import keras
import numpy as np
from keras import layers
from same_start import same_start

TICKETS, WORDS, TAGS, DEPARTMENTS = 640, 40, 6, 4
rng = np.random.default_rng(3)
words = rng.poisson(0.4, (TICKETS, WORDS)).astype("float32")
tags = rng.integers(0, 2, (TICKETS, TAGS)).astype("float32")
topic = words @ rng.normal(size=(WORDS, DEPARTMENTS)) + tags[:, :4]
department = topic.argmax(axis=1)
urgency = (0.3 * words[:, :5].sum(axis=1, keepdims=True) + tags[:, :1] + 0.1 * rng.normal(size=(TICKETS, 1))).astype(
    "float32"
)

words_input = keras.Input(shape=(WORDS,), name="words")
tags_input = keras.Input(shape=(TAGS,), name="tags")
both = layers.concatenate([layers.Dense(24, activation="relu")(words_input), tags_input])
shared = layers.Dense(16, activation="tanh", name="shared")(both)
urgency_output = layers.Dense(1, name="urgency")(shared)
department_output = layers.Dense(DEPARTMENTS, name="department")(shared)
model = keras.Model(inputs=[words_input, tags_input], outputs=[urgency_output, department_output])
same_start(model)

model.compile(
    optimizer=keras.optimizers.RMSprop(1e-3),
    loss={
        "urgency": keras.losses.Huber(),
        "department": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    },
    loss_weights={"urgency": 2.0, "department": 0.5},
    metrics={
        "urgency": ["mae", keras.metrics.MeanSquaredError(name="mse")],
        "department": [keras.metrics.SparseCategoricalAccuracy(name="acc")],
    },
)
history = model.fit(
    {"words": words[:512], "tags": tags[:512]},
    {"urgency": urgency[:512], "department": department[:512]},
    epochs=8,
    batch_size=32,
    shuffle=False,
    validation_split=0.25,
    verbose=0,
)
test_x, test_y = [words[512:], tags[512:]], [urgency[512:], department[512:]]
scores = model.evaluate(test_x, test_y, verbose=0, return_dict=True)
listed = model.evaluate(test_x, test_y, verbose=0)
urgent, logits = model.predict(test_x, verbose=0)
batch = model.train_on_batch([words[:32], tags[:32]], [urgency[:32], department[:32]], return_dict=True)

# The same with a dict of outputs, lists of losses by key, and one metric for all.
named = keras.Model(
    {"words": words_input, "tags": tags_input}, {"urgency": urgency_output, "department": department_output}
)
named.compile(
    optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
    loss={"urgency": "mse", "department": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
)
named_history = named.fit(
    {"words": words[:512], "tags": tags[:512]},
    {"urgency": urgency[:512], "department": department[:512]},
    epochs=2,
    shuffle=False,
    verbose=0,
)
answers = named.predict({"words": words[512:], "tags": tags[512:]}, verbose=0)

STEPS = 8 * 12 + 1 + 2 * 16
RESULTS = {
    "history": history.history,
    "keys": sorted(history.history),
    "test": scores,
    "loss of the list": listed[0],
    "length of the list": len(listed),
    "urgency": urgent,
    "department": logits,
    "one batch": batch,
    "history by key": named_history.history,
    "answers": answers,
    "output names": model.output_names,
    "shapes": [tuple(shape) for shape in model.output_shape],
}
