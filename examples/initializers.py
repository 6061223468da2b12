"""Initializers: glorot's limits against the drawn weights, and what they are good for."""

from __future__ import annotations

import math

import numpy as np
import torch
from drawing import BLUE, GREEN, GREY, ORANGE, figure, svg
from report import Chapter, Claim, Picture, alone

import fanin
from fanin import Sequential
from fanin.layers import Dense

SIZES = ((64, 256), (256, 256), (1024, 512))
DEPTH, WIDTH = 12, 256
STARTS = {
    "glorot_uniform": "glorot_uniform",
    "uniform within ±0.02": fanin.initializers.RandomUniform(-0.02, 0.02),
    "uniform within ±0.25": fanin.initializers.RandomUniform(-0.25, 0.25),
}


def limit(fan_in: int, fan_out: int) -> float:
    """sqrt(6 / (fan_in + fan_out))."""
    return math.sqrt(6 / (fan_in + fan_out))


def drawn_weights() -> list[np.ndarray]:
    """The kernels of new layers; the biases are checked to be zero on the way."""
    kernels = []
    for fan_in, units in SIZES:
        layer = Dense(units, input_shape=(fan_in,))
        layer.build((None, fan_in))
        if layer.bias.abs().max() != 0:
            raise AssertionError("the bias does not start at zero")
        kernels.append(layer.kernel.detach().numpy())
    return kernels


def spreads(initializer: object) -> list[float]:
    """The standard deviation of a signal behind 0, 1, ..., DEPTH layers without activation."""
    model = Sequential([Dense(WIDTH, kernel_initializer=initializer) for _ in range(DEPTH)])
    signal = torch.randn(512, WIDTH)
    found = [signal.std().item()]
    with torch.no_grad():
        for layer in model.layers:
            signal = layer(signal)
            found.append(signal.std().item())
    return found


def draw_limits(kernels: list[np.ndarray]) -> str:
    """Histograms of the weights, with ±limit marked."""
    drawn, axes = figure(1, 3, height=2.3, sharex=True)
    for ax, (fan_in, units), kernel in zip(axes[0], SIZES, kernels, strict=True):
        edge = limit(fan_in, units)
        counts, edges = np.histogram(kernel, np.linspace(-edge, edge, 33), density=True)
        ax.stairs(counts, edges, fill=True, color=BLUE, linewidth=0)
        for side in (-edge, edge):
            ax.axvline(side, color=ORANGE, linewidth=1.6)
        ax.set(title=f"{fan_in} in, {units} out: limit {edge:.4f}", xlabel="weight", xlim=(-0.2, 0.2), yticks=[])
        ax.spines["left"].set_visible(False)
    return svg(drawn)


def draw_spreads(found: dict[str, list[float]]) -> str:
    """The spread of the signal, layer by layer."""
    drawn, axes = figure(height=2.6)
    ax = axes[0, 0]
    for (name, values), colour in zip(found.items(), (BLUE, GREY, GREEN), strict=True):
        ax.plot(range(DEPTH + 1), values, color=colour, marker="o", markersize=4)
        ax.text(DEPTH + 0.25, values[-1], name, color=colour, va="center", weight="bold")
    ax.set(yscale="log", xlabel="layers passed", xlim=(-0.3, DEPTH + 4), xticks=range(0, DEPTH + 1, 2),
           title="Spread of the signal (standard deviation)")  # fmt: skip
    ax.grid(axis="y")
    return svg(drawn)


def run(quick: bool = False) -> Chapter:
    """Draw weights and measure them."""
    fanin.utils.set_random_seed(0)
    kernels = drawn_weights()
    outside = sum(int((np.abs(k) > limit(*size)).sum()) for k, size in zip(kernels, SIZES, strict=True))
    ratios = [k.std() / (limit(*size) / math.sqrt(3)) for k, size in zip(kernels, SIZES, strict=True)]
    worst = max(abs(ratio - 1) for ratio in ratios)
    found = {name: spreads(start) for name, start in STARTS.items()}
    kept = found["glorot_uniform"][-1]
    others = [values[-1] for name, values in found.items() if name != "glorot_uniform"]
    return Chapter(
        "Initializers",
        [
            "The bias starts at zero. The kernel is drawn evenly between -limit and limit, where limit = "
            "`sqrt(6 / (fan_in + fan_out))` shrinks as the layer grows. A uniform distribution with this limit has the "
            "standard deviation limit / sqrt(3).",
            "Why this limit? A signal that passes many layers then keeps its size. With one fixed range for layers of "
            "every size, it fades or explodes.",
        ],
        [
            Picture(
                draw_limits(kernels),
                "Histograms of the kernels of three new layers; all weights are between the limits",
                "The weights of three new layers, and the limits from the formula.",
            ),
            Picture(
                draw_spreads(found),
                "With glorot_uniform the spread stays near 1, with the other two it shrinks or grows by powers of ten",
                f"A random signal behind up to {DEPTH} layers of {WIDTH} units. The axis is logarithmic.",
            ),
        ],
        [
            Claim(
                f"of {sum(k.size for k in kernels):,} weights none is outside of ±limit", f"{outside} are", outside == 0
            ),
            Claim("their standard deviation is limit / sqrt(3), within 2 %", f"{worst:.2%} off", worst <= 0.02),
            Claim(
                f"after {DEPTH} layers glorot keeps the spread within a factor of 2; the fixed ranges change it more "
                "than 1,000-fold",
                f"{kept:.2f}, against {others[0]:.1e} and {others[1]:.1e}",
                0.5 <= kept <= 2 and others[0] < 1e-3 and others[1] > 1e3,
            ),
        ],
    )


if __name__ == "__main__":
    alone(run)
