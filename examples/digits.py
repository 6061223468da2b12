"""Handwritten digits: a Sequential of Dense layers, trained with `fit`."""

from __future__ import annotations

from typing import Any

import numpy as np
from drawing import BLUE, GRID, MUTED, ORANGE, figure, svg
from matplotlib.patches import Rectangle
from report import Chapter, Claim, Picture, Printed, alone, code
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fanin
from fanin import Sequential
from fanin.layers import Dense

EPOCHS = 30


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_train (1347, 64), x_test (450, 64) with values from 0 to 1, and the digits y_train, y_test.

    The 1,797 real images of 8 x 8 pixels that come with scikit-learn; every digit has the same share in both parts.
    """
    data = load_digits()
    x = (data.data / 16).astype("float32")
    return train_test_split(x, data.target, test_size=0.25, stratify=data.target, random_state=0)


def make_model() -> Sequential:
    """Two hidden layers, added one by one."""
    model = Sequential()
    # the first layer says what comes in: arrays of shape (*, 64)
    model.add(Dense(256, activation="relu", input_shape=(64,)))
    # the layers after it take what they are given
    model.add(Dense(128, activation="relu"))
    model.add(Dense(10, activation="softmax"))
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


def train(epochs: int = EPOCHS, seed: int = 0, verbose: Any = "auto") -> tuple[Sequential, dict[str, list[float]]]:
    """The trained model, and its numbers for each epoch."""
    x_train, x_test, y_train, y_test = split()
    fanin.utils.set_random_seed(seed)
    model = make_model()
    history = model.fit(x_train, y_train, epochs=epochs, validation_data=(x_test, y_test), verbose=verbose)
    return model, history.history


def draw(history: dict[str, list[float]], bound: float, wrong: list[tuple[np.ndarray, int, int]]) -> str:
    """Accuracy by epoch, and the held-out images that the model takes for another digit: (image, digit, answer)."""
    drawn, axes = figure(1, 2, height=2.9, width_ratios=[1.15, 1])
    ax = axes[0, 0]
    epochs = np.arange(1, len(history["accuracy"]) + 1)
    ax.axhline(bound, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    ax.text(epochs[-1], bound - 0.006, f"bound {bound}", color=MUTED, ha="right", va="top")
    ax.plot(epochs, history["accuracy"], color=ORANGE, label="training images")
    ax.plot(epochs, history["val_accuracy"], color=BLUE, label="held-out images")
    ax.set(title="Accuracy", xlabel="epoch", ylim=(0.8, 1.005), xlim=(0.5, epochs[-1] + 0.5))
    ax.grid(axis="y")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0.02))

    ax = axes[0, 1]
    rows, columns = 3, 4
    for place, (image, digit, answer) in enumerate(wrong[: rows * columns]):
        top, left = place // columns * 11.5, place % columns * 10
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1, interpolation="none",
                  extent=(left, left + 8, top + 8, top))  # fmt: skip
        ax.add_patch(Rectangle((left, top), 8, 8, fill=False, edgecolor=GRID, linewidth=0.8))
        ax.text(left + 4, top + 9.4, f"{digit}, not {answer}", ha="center", va="center", fontsize=8, color=MUTED)
    ax.set(title="Held-out images that it gets wrong", xlim=(-0.5, columns * 10 - 1.5), ylim=(rows * 11.5, -0.5))
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.set(xticks=[], yticks=[])
    return svg(drawn)


def run(quick: bool = False) -> Chapter:
    """Train, and look at the held-out accuracy."""
    model, history = train(8 if quick else EPOCHS)
    bound = 0.93 if quick else 0.97
    _, x_test, _, y_test = split()
    accuracy = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
    answers = model.predict(x_test, verbose=0).argmax(axis=1)
    wrong = [(x_test[i], y_test[i], answers[i]) for i in np.flatnonzero(answers != y_test)]
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    table = "\n".join(line.rstrip() for line in lines)
    print(table)
    return Chapter(
        "Handwritten digits",
        [
            "1,797 real images of 8 x 8 pixels, three quarters to learn from and 450 held out. `units` is all that a "
            "`Dense` layer must be told: the first layer learns from `input_shape` that 64 numbers come in, the others "
            "see it for themselves.",
            "What counts is the accuracy after the last epoch, not the best on the way.",
        ],
        [
            code(make_model),
            Printed(table),
            Picture(
                draw(history, bound, wrong),
                f"Accuracy by epoch, {accuracy:.3f} on held-out images at the end, and the images it gets wrong",
                f"Left: accuracy by epoch; that of the training images is taken while the weights change. Right: "
                f"{min(len(wrong), 12)} of the {len(wrong)} images (of {len(y_test)}) that the model takes for another "
                "digit, each with the right digit and the answer.",
            ),
        ],
        [Claim(f"accuracy on {len(y_test)} held-out digits is at least {bound}", f"{accuracy:.4f}", accuracy >= bound)],
    )


if __name__ == "__main__":
    alone(run)
