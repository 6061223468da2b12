"""Constraints: weights that stay where they are told to, after each update."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from digits import split
from drawing import BLUE, ORANGE, figure, share, svg, tiles
from report import Chapter, Claim, Picture, alone, code
from rich.progress import track

import fanin
from fanin import Sequential
from fanin.callbacks import Callback
from fanin.constraints import MaxNorm, NonNeg
from fanin.layers import Dense

CLIP = 0.1


def clip(weights: torch.Tensor) -> torch.Tensor:
    """A constraint is any function from a tensor to a tensor."""
    return weights.clamp(-CLIP, CLIP)


RULES = {"none": None, "NonNeg()": NonNeg(), f"clip to ±{CLIP}": clip, "MaxNorm(1)": MaxNorm(1)}


def make_model(rule: Any) -> Sequential:
    """One hidden layer with a constraint on its kernel."""
    model = Sequential()
    model.add(Dense(32, "relu", kernel_constraint=rule, input_shape=(64,)))
    model.add(Dense(10, activation="softmax"))
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


class Watch(Callback):
    """Remembers the extremes of a kernel over all steps of training."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.lowest, self.highest, self.longest = 0, np.inf, -np.inf, 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the kernel after a step."""
        kernel = self.model.layers[0].kernel.detach()
        self.steps += 1
        self.lowest = min(self.lowest, kernel.min().item())
        self.highest = max(self.highest, kernel.max().item())
        self.longest = max(self.longest, kernel.norm(dim=0).max().item())


def train(rule: Any, epochs: int, seed: int = 0) -> tuple[Watch, np.ndarray, float]:
    """Train on the digits: what the kernel did on the way, the kernel in the end, the held-out accuracy."""
    x_train, x_test, y_train, y_test = split()
    fanin.utils.set_random_seed(seed)
    model, watch = make_model(rule), Watch()
    model.fit(x_train, y_train, epochs=epochs, callbacks=[watch], verbose=0)
    accuracy = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
    return watch, model.layers[0].kernel.detach().numpy().copy(), accuracy


def draw(kernels: dict[str, np.ndarray]) -> str:
    """For each rule: units as pictures, all weights, the length of each unit's weights."""
    drawn, axes = figure(3, len(kernels), height=5.4, height_ratios=[1.75, 1, 1])
    for column, (name, kernel) in enumerate(kernels.items()):
        tiles(axes[0, column], kernel, 4, 4, limit=0.6)
        axes[0, column].set_title(name if column else "no constraint")
        share(axes[1, column], kernel, np.linspace(-0.8125, 0.8125, 66), 50, BLUE, "weight")
        norms = np.linalg.norm(kernel, axis=0)
        share(axes[2, column], norms, np.linspace(-0.05, 4.05, 42), 100, ORANGE, "norm of a unit")
        for row in (1, 2):
            axes[row, column].tick_params(labelleft=not column)
    axes[1, 0].set_ylabel("% of weights")
    axes[2, 0].set_ylabel("% of units")
    return svg(drawn)


def run(quick: bool = False) -> Chapter:
    """Train with each rule and look at the kernel after every step."""
    epochs = 5 if quick else 30
    found = {name: train(rule, epochs) for name, rule in track(RULES.items(), "four rules", len(RULES))}
    free, positive, clipped, short = (watch for watch, _, _ in found.values())
    accuracies = {name: accuracy for name, (_, _, accuracy) in found.items()}
    steps = f"after each of {free.steps:,} steps"
    largest = max(-clipped.lowest, clipped.highest)
    return Chapter(
        "Constraints",
        [
            "A constraint is applied to a weight after each update. `NonNeg` sets what became negative to zero, "
            "`MaxNorm` shortens the weights of a unit to a length, and a function of your own does what you like: "
            "clipping takes one line.",
            "It is not for free: tight clipping drives most weights to one end or the other. Held-out accuracy: "
            + ", ".join(f"{name} {accuracy:.3f}" for name, accuracy in accuracies.items())
            + ".",
        ],
        [
            code(clip, make_model),
            Picture(
                draw({name: kernel for name, (_, kernel, _) in found.items()}),
                "Weights of a hidden layer after training with each of four constraints",
                "Above: the 16 units with the largest weights, as pictures (blue positive, orange negative, the same "
                "scale everywhere). In the middle: all weights. Below: the Euclidean norm of each unit's weights.",
            ),
        ],
        [
            Claim(
                f"with NonNeg no weight is negative {steps}; without, the lowest is below -0.2",
                f"{positive.lowest:g} and {free.lowest:.2f}",
                positive.lowest >= 0 and free.lowest < -0.2,
            ),
            Claim(
                f"with clipping all weights are within ±{CLIP} {steps}",
                f"largest {largest:.4f}",
                largest <= np.float32(CLIP),
            ),
            Claim(
                f"with MaxNorm(1) no unit's weights are longer than 1 {steps}; without, the longest are above 1.2",
                f"{short.longest:.6f} and {free.longest:.2f}",
                short.longest <= 1 + 1e-6 and free.longest > 1.2,
            ),
        ],
    )


if __name__ == "__main__":
    alone(run)
