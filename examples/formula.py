"""The formula: output = activation(dot(inputs, kernel) + bias), and what it means for more than two axes."""

from __future__ import annotations

import numpy as np
from drawing import BLUE, GREEN, GREY, INK, MUTED, ORANGE, figure, svg
from matplotlib.patches import Rectangle
from report import Chapter, Claim, Picture, Table, alone

import fanin
from fanin.layers import Dense

BATCH, INPUTS, UNITS = 5, 16, 32


def by_hand(inputs: np.ndarray, layer: Dense) -> np.ndarray:
    """relu(inputs @ kernel + bias) in numpy's float64."""
    kernel = layer.kernel.detach().numpy().astype("float64")
    bias = 0.0 if layer.bias is None else layer.bias.detach().numpy().astype("float64")
    return np.maximum(inputs.astype("float64") @ kernel + bias, 0)


def draw() -> str:
    """The shapes of the formula, as rectangles."""
    drawn, axes = figure(height=1.75)
    ax = axes[0, 0]
    row = 0.0  # all shapes stand on this line
    shapes = [
        (0, 16, 5, BLUE, "inputs", "(batch, 16)"), (23, 32, 16, ORANGE, "kernel", "(16, units)"),
        (62, 32, 1, GREEN, "bias", "(units,)"), (101, 32, 5, GREY, "output", "(batch, units)"),
    ]  # fmt: skip
    for left, width, height, colour, name, shape in shapes:
        ax.add_patch(Rectangle((left, row - height / 2), width, height, facecolor=colour, linewidth=0))
        ax.text(left + width / 2, row + 9.8, name, ha="center", va="bottom", color=INK, weight="bold")
        ax.text(left + width / 2, row - 9.8, shape, ha="center", va="top", color=MUTED)
    for place, sign in ((19.5, "@"), (58.5, "+"), (97.5, "=")):
        ax.text(place, row, sign, ha="center", va="center", fontsize=13, color=INK)
    ax.set(xlim=(-1, 134), ylim=(-15, 15), aspect="equal")
    ax.set_axis_off()
    return svg(drawn)


def run(quick: bool = False) -> Chapter:
    """Compare with numpy."""
    fanin.utils.set_random_seed(0)
    inputs = np.random.default_rng(0).normal(size=(BATCH, INPUTS)).astype("float32")
    rows, worst = [], 0.0
    for use_bias in (True, False):
        layer = Dense(UNITS, activation="relu", use_bias=use_bias, bias_initializer="random_normal")
        output = layer(inputs).detach().numpy()
        worst = max(worst, np.abs(output - by_hand(inputs, layer)).max())
        bias = "none" if layer.bias is None else str(tuple(layer.bias.shape))
        rows.append([f"`use_bias={use_bias}`", str(inputs.shape), str(tuple(layer.kernel.shape)), bias,
                     str(output.shape)])  # fmt: skip

    cube = np.random.default_rng(1).normal(size=(BATCH, 7, INPUTS)).astype("float32")
    layer = Dense(UNITS, activation="relu")
    output = layer(cube).detach().numpy()
    # what it means: the same layer on each of the 7 sub-arrays (batch, 16)
    each = np.stack([by_hand(cube[:, place], layer) for place in range(cube.shape[1])], axis=1)
    last_axis = np.abs(output - each).max() if output.shape == each.shape else np.inf
    rows.append(["rank 3", str(cube.shape), str(tuple(layer.kernel.shape)), str(tuple(layer.bias.shape)),
                 str(output.shape)])  # fmt: skip
    return Chapter(
        "Units, bias, and inputs of higher rank",
        [
            "`units` is the size of the output, and with the size of the input it settles every shape: the kernel has "
            "a column, and the bias a number, for each unit.",
            "One thing differs from what the post says of inputs of rank above 2: they are not flattened. The product "
            "runs over the last axis, for every position on the axes before it, with the same kernel.",
        ],
        [
            Picture(draw(), "inputs times kernel plus bias gives the output", "`units` = 32 on a batch of 5 rows."),
            Table(["", "inputs", "kernel", "bias", "output"], rows),
        ],
        [
            Claim("output = relu(dot(inputs, kernel) + bias), within 0.00001 of numpy", f"{worst:.1e}", worst <= 1e-5),
            Claim(
                "(5, 7, 16) gives (5, 7, 32), from one kernel (16, 32) along the last axis, within 0.00001 of numpy",
                f"{output.shape}, {last_axis:.1e}",
                last_axis <= 1e-5 and tuple(layer.kernel.shape) == (INPUTS, UNITS),
            ),
        ],
    )


if __name__ == "__main__":
    alone(run)
