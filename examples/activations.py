"""Activations: what the functions look like, and why there must be one."""

from __future__ import annotations

import numpy as np
import torch
from drawing import BLUE, MUTED, ORANGE, figure, svg
from matplotlib.colors import LinearSegmentedColormap
from report import Chapter, Claim, Picture, alone, code
from sklearn.datasets import make_circles
from sklearn.model_selection import train_test_split

import fanin
from fanin import Sequential
from fanin.layers import Dense

NAMES = ("linear", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh", "sigmoid", "hard_sigmoid")
SHADES = LinearSegmentedColormap.from_list("shades", [ORANGE, "#f6f7f9", BLUE])


def make_model(activation: str | None) -> Sequential:
    """Two hidden layers; with None, nothing but products and sums."""
    model = Sequential()
    model.add(Dense(32, activation=activation, input_shape=(2,)))
    model.add(Dense(32, activation=activation))
    model.add(Dense(1, activation="sigmoid"))
    model.compile(optimizer=fanin.optimizers.Adam(0.01), loss="binary_crossentropy")
    return model


def draw_functions() -> str:
    """Every function from -4 to 4."""
    drawn, axes = figure(2, 5, height=2.9, sharex=True, sharey=True)
    x = torch.linspace(-4, 4, 201)
    for ax, name in zip(axes.flat, NAMES, strict=True):
        ax.axhline(0, color=MUTED, linewidth=0.6)
        ax.axvline(0, color=MUTED, linewidth=0.6)
        ax.plot(x, fanin.activations.get(name)(x), color=BLUE)
        ax.set(title=name, ylim=(-1.6, 3.2), xlim=(-4, 4), xticks=(-4, 0, 4), yticks=(-1, 0, 1, 2, 3))
    return svg(drawn)


def draw_maps(models: dict[str, Sequential], x: np.ndarray, y: np.ndarray, accuracies: list[float]) -> str:
    """What each model answers on the plane, and the held-out points."""
    drawn, axes = figure(1, 2, height=3.3)
    side = np.linspace(-1.5, 1.5, 61)
    plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype("float32")
    for ax, (name, model), accuracy in zip(axes[0], models.items(), accuracies, strict=True):
        answer = model.predict(plane, batch_size=4096, verbose=0).reshape(61, 61)
        ax.imshow(answer, extent=(-1.5, 1.5, -1.5, 1.5), origin="lower", cmap=SHADES, vmin=-0.35, vmax=1.35,
                  interpolation="bilinear")  # fmt: skip
        ax.contour(side, side, answer, levels=[0.5], colors=["#3b424a"], linewidths=1.4)
        for label, colour in ((0, ORANGE), (1, BLUE)):
            ax.scatter(*x[y == label].T, s=11, color=colour, edgecolors="#ffffff", linewidths=0.5, rasterized=True)
        ax.set(title=f"{name}: {accuracy:.0%} right", xticks=[], yticks=[])
        for spine in ("left", "bottom"):
            ax.spines[spine].set_visible(False)
    return svg(drawn)


def run(quick: bool = False) -> Chapter:
    """Train with and without an activation on two rings, one inside the other."""
    x, y = make_circles(800, factor=0.45, noise=0.09, random_state=0)
    x_train, x_test, y_train, y_test = train_test_split(x.astype("float32"), y, stratify=y, random_state=0)
    models, accuracies = {}, []
    for name, activation in (("no activation", None), ("relu", "relu")):
        fanin.utils.set_random_seed(0)
        models[name] = model = make_model(activation)
        model.fit(x_train, y_train, epochs=12 if quick else 40, verbose=0)
        accuracies.append(float(((model.predict(x_test, verbose=0)[:, 0] > 0.5) == y_test).mean()))

    first, second = (layer.kernel.detach().double() for layer in models["no activation"].layers[:2])
    biases = [layer.bias.detach().double() for layer in models["no activation"].layers[:2]]
    inputs = torch.from_numpy(x_test)
    with torch.no_grad():
        both = models["no activation"].layers[1](models["no activation"].layers[0](inputs))
    one = inputs.double() @ (first @ second) + (biases[0] @ second + biases[1])
    difference = (both - one).abs().max().item() / one.abs().max().item()
    return Chapter(
        "Activations",
        [
            "Without an activation a `Dense` layer is linear, and layers behind one another are no more than one: "
            "`(x @ A + a) @ B + b` is `x @ (A @ B) + (a @ B + b)`. No straight line parts two rings, however many "
            "layers draw it.",
            "An activation is a name, a function on tensors, or a module. Some of the names:",
        ],
        [
            Picture(draw_functions(), "Ten activation functions from -4 to 4", "Input across, output upwards."),
            code(make_model),
            Picture(
                draw_maps(models, x_test, y_test, accuracies),
                "Two rings of points: without activation the plane is one colour, with relu the inner ring is enclosed",
                f"{len(y_test)} held-out points, and what two networks of the same size answer on the plane. The "
                "dark line is where the answer changes.",
            ),
        ],
        [
            Claim(
                "two layers without activation are one layer, within a 100,000th",
                f"{difference:.1e} of the largest output",
                difference <= 1e-5,
            ),
            Claim(
                "without activation at most 0.7 of the held-out points are right",
                f"{accuracies[0]:.3f}",
                accuracies[0] <= 0.7,
            ),
            Claim("with relu at least 0.95 are", f"{accuracies[1]:.3f}", accuracies[1] >= 0.95),
        ],
    )


if __name__ == "__main__":
    alone(run)
