"""How the pictures look: few colours that read on light and dark pages, no frame, quiet axes."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import LinearSegmentedColormap

BLUE, ORANGE, GREEN, GREY = "#3d7dca", "#e0762f", "#2f9e7e", "#8d959e"
# Stand-ins that `svg` replaces by the page's own colours, so that a picture follows its light or dark theme.
INK, MUTED, GRID = "#010203", "#040506", "#070809"
_THEME = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)"}
DIVERGING = LinearSegmentedColormap.from_list("diverging", [ORANGE, "#f6f7f9", BLUE])

STYLE = {
    "font.size": 9.5, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlepad": 7, "axes.labelsize": 9.5,
    "text.color": INK, "axes.labelcolor": MUTED, "axes.titlecolor": INK, "axes.edgecolor": GRID,
    "xtick.color": GRID, "ytick.color": GRID, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False, "grid.color": GRID,
    "grid.linewidth": 0.8, "axes.axisbelow": True, "lines.linewidth": 1.8, "legend.frameon": False,
    "figure.constrained_layout.use": True, "savefig.transparent": True, "savefig.dpi": 200, "svg.fonttype": "none",
    "svg.hashsalt": "fanin",
}  # fmt: skip


def figure(rows: int = 1, columns: int = 1, height: float = 2.6, **kwargs: Any) -> tuple[Any, Any]:
    """A figure as wide as the page, and its axes as an array (rows, columns)."""
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=(7.6, height), squeeze=False, **kwargs)


def svg(drawn: Any) -> str:
    """The figure as SVG for a place inside an HTML page; the figure is closed."""
    file = io.StringIO()
    drawn.savefig(file, format="svg", metadata={"Date": None})
    plt.close(drawn)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # an HTML page needs no namespaces
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font: ([^;\"]*)'DejaVu Sans'[^;\"]*", r"font: \1system-ui, 'Liberation Sans', sans-serif", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    for stand_in, colour in _THEME.items():
        text = text.replace(stand_in, colour)
    return re.sub(r"\n\s*", "\n", text)


def share(ax: Any, values: np.ndarray, edges: np.ndarray, top: float, colour: str, name: str) -> None:
    """A histogram of all values in percent; those beyond the ends count at the ends, a bar above `top` is labelled."""
    counts, _ = np.histogram(np.clip(values.ravel(), edges[0], edges[-1]), edges)
    percent = 100 * counts / values.size
    ax.stairs(percent, edges, fill=True, color=colour, linewidth=0)
    ax.set(xlabel=name, xlim=(edges[0], edges[-1]), ylim=(0, top))
    ax.grid(axis="y")
    tallest = int(percent.argmax())
    if percent[tallest] > top:
        ax.annotate(f"{percent[tallest]:.0f} %", (edges[tallest + 1], 0.95 * top), xytext=(4, 0),
                    textcoords="offset points", va="top", fontsize=8.5)  # fmt: skip


def tiles(ax: Any, kernel: np.ndarray, rows: int, columns: int, limit: float) -> None:
    """The units of a kernel (64, U) with the longest weight vectors, each as the 8 x 8 picture of its weights."""
    order = np.argsort(-np.linalg.norm(kernel, axis=0))[: rows * columns]
    sheet = np.full((rows * 9 - 1, columns * 9 - 1), np.nan)
    for place, unit in enumerate(order):
        top, left = place // columns * 9, place % columns * 9
        sheet[top : top + 8, left : left + 8] = kernel[:, unit].reshape(8, 8)
    ax.imshow(sheet, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="none")
    ax.set_axis_off()
