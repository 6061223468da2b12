"""Regularizers: what L1, L2 and an activity penalty do to the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from digits import split
from drawing import BLUE, ORANGE, figure, share, svg, tiles
from report import Chapter, Claim, Picture, Table, alone, code
from rich.progress import track

import fanin
from fanin import Sequential
from fanin.layers import Dense
from fanin.regularizers import L1, L2

UNITS = 32
NEAR_ZERO = 0.01
PENALTIES = {
    "none": {},
    "L1": {"kernel_regularizer": L1(0.002)},
    "L2": {"kernel_regularizer": L2(0.01)},
    "activity L1": {"activity_regularizer": L1(0.01)},
}


def make_model(**penalty: object) -> Sequential:
    """One hidden layer; the penalty is on its kernel or on its output."""
    model = Sequential()
    model.add(Dense(UNITS, activation="relu", input_shape=(64,), **penalty))
    model.add(Dense(10, activation="softmax"))
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


@dataclass
class Outcome:
    """What training left behind: the hidden layer's kernel (64, UNITS), its outputs, the held-out accuracy."""

    kernel: np.ndarray
    outputs: np.ndarray
    accuracy: float

    @property
    def near_zero(self) -> float:
        """The share of weights nearer to zero than NEAR_ZERO."""
        return float((np.abs(self.kernel) < NEAR_ZERO).mean())

    @property
    def length(self) -> float:
        """The Euclidean norm of the kernel."""
        return float(np.linalg.norm(self.kernel))

    @property
    def activity(self) -> float:
        """The mean absolute output."""
        return float(np.abs(self.outputs).mean())


def train(penalty: dict[str, object], epochs: int, seed: int = 0) -> Outcome:
    """Train on the digits with one penalty."""
    x_train, x_test, y_train, y_test = split()
    fanin.utils.set_random_seed(seed)
    model = make_model(**penalty)
    model.fit(x_train, y_train, epochs=epochs, verbose=0)
    accuracy = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
    hidden = model.layers[0]
    with torch.no_grad():
        return Outcome(hidden.kernel.detach().numpy().copy(), hidden(x_test).numpy(), accuracy)


def losses_are_the_formulas() -> float:
    """How far `losses` is from 0.1 |kernel| + 0.2 bias^2 + 0.3 |output| / batch, worked out in numpy."""
    layer = Dense(
        4,
        bias_initializer="random_normal",
        kernel_regularizer=L1(0.1),
        bias_regularizer=L2(0.2),
        activity_regularizer=L1(0.3),
        input_shape=(3,),
    )
    output = layer(torch.randn(8, 3)).detach().numpy().astype("float64")
    kernel, bias = (weight.detach().numpy().astype("float64") for weight in (layer.kernel, layer.bias))
    by_hand = [0.1 * np.abs(kernel).sum(), 0.2 * (bias**2).sum(), 0.3 * np.abs(output).sum() / 8]
    found = [loss.item() for loss in layer.losses]
    if len(found) != 3:
        return np.inf
    return max(abs(a - b) / b for a, b in zip(sorted(found), sorted(by_hand), strict=True))


def draw(outcomes: dict[str, Outcome]) -> str:
    """For each penalty: units as pictures, the weights, the outputs."""
    drawn, axes = figure(3, len(outcomes), height=5.4, height_ratios=[1.75, 1, 1])
    around_zero = np.linspace(-0.8125, 0.8125, 66)  # the bar in the middle has zero in its middle
    for column, (name, outcome) in enumerate(outcomes.items()):
        tiles(axes[0, column], outcome.kernel, 4, 4, limit=0.6)
        axes[0, column].set_title(name if column else "no penalty")
        share(axes[1, column], outcome.kernel, around_zero, 30, BLUE, "weight")
        share(axes[2, column], outcome.outputs, np.linspace(0, 4, 41), 30, ORANGE, "output")
        for row in (1, 2):
            axes[row, column].tick_params(labelleft=not column)
    axes[1, 0].set_ylabel("% of all")
    axes[2, 0].set_ylabel("% of all")
    return svg(drawn)


def run(quick: bool = False) -> Chapter:
    """Train with each penalty and compare the weights."""
    epochs, most = (12, 0.7) if quick else (40, 0.5)
    outcomes = {
        name: train(penalty, epochs) for name, penalty in track(PENALTIES.items(), "four penalties", len(PENALTIES))
    }
    none, l1, l2, activity = outcomes.values()
    error = losses_are_the_formulas()
    rows = [
        [name, f"{o.near_zero:.1%}", f"{o.length:.2f}", f"{o.activity:.3f}", f"{o.accuracy:.4f}"]
        for name, o in outcomes.items()
    ]
    return Chapter(
        "Regularizers",
        [
            "A penalty can sit on the kernel, on the bias, or on the output. `fit` adds it to the loss; a loop of your "
            "own finds it in `model.losses`.",
            "L1 pulls every weight to zero with the same force, so those that help little end there: the pictures get "
            "sparse. L2 pulls in proportion to the size: all get small, and those of the blank margins fade away. The "
            "activity penalty nearly leaves the weights alone and asks the layer to speak seldom.",
        ],
        [
            code(make_model),
            Picture(
                draw(outcomes),
                "Weights and outputs of a hidden layer after training with each of four penalties",
                "Above: the 16 units with the largest weights, each as the picture of its 8 x 8 weights (blue "
                "positive, orange negative, one scale for all). Below: all weights, and all outputs on held-out "
                "digits; the bars at the ends hold what lies beyond.",
            ),
            Table(["penalty", f"|weight| < {NEAR_ZERO}", "norm of kernel", "mean |output|", "accuracy"], rows),
        ],
        [
            Claim(
                f"with L1 at least 5 times as many weights are within ±{NEAR_ZERO}",
                f"{l1.near_zero:.1%} against {none.near_zero:.1%}",
                l1.near_zero >= 5 * none.near_zero,
            ),
            Claim(
                f"with L2 the kernel's norm is at most {most} times that without",
                f"{l2.length:.2f} against {none.length:.2f}",
                l2.length <= most * none.length,
            ),
            Claim(
                f"with the activity penalty the mean output is at most {most} times that without",
                f"{activity.activity:.3f} against {none.activity:.3f}",
                activity.activity <= most * none.activity,
            ),
            Claim(
                "`losses` holds the three penalties of a layer, as the formulas say, within a 100,000th",
                f"{error:.1e}",
                error <= 1e-5,
            ),
        ],
    )


if __name__ == "__main__":
    alone(run)
