"""The pictures of a report: a dot for each peer of a case, and lines over the values of a sweep.

They are SVG with text as text, on a white card of their own, so that dark pages can show them too; the same figures
give the same file. Vermilion and blue differ for every kind of colour vision, and shapes differ as well.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullLocator

from benchmarks import sweeps
from benchmarks.figures import Compared, Found, Spread, figures, number, scale

OWN, OTHER, LIMIT, INK = "#D55E00", "#0072B2", "#555555", "#222222"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fanin",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LIMIT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#dddddd",
    "figure.facecolor": "white",
}
WORDS = {"us": "microseconds", "ms": "milliseconds", "s": "seconds"}


def save(figure: Figure, path: Path) -> None:
    """The picture in a file; SVG or, for a look at it, PNG, by the name."""
    metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {}
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, metadata=metadata)


def dots(case: Compared, found: Found) -> Figure:
    """The median of each peer, fastest on top, with a line from the least to the most; the limit is a dashed line."""
    unit, us = scale(found)
    spreads = {
        name: Spread.of([value / us for value in figures(found, name)]) for name in found["peers"] if name != "limit"
    }
    names = sorted(spreads, key=lambda name: -spreads[name].median)
    title = textwrap.wrap(case.title, 64)
    with matplotlib.rc_context(STYLE):
        figure = _figure(1.1 + 0.2 * len(title) + 0.28 * len(names))
        axes = figure.subplots()
        for place, name in enumerate(names):
            one, own = spreads[name], name.startswith("fanin")
            color = OWN if own else OTHER
            axes.plot([one.least, one.most], [place, place], color=color, linewidth=2, solid_capstyle="butt")
            axes.plot([one.median], [place], color=color, marker="D" if own else "o", markersize=7)
            axes.annotate(number(one.median), (one.most, place), (9, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xscale("log")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        low, high = axes.get_xlim()
        if "limit" in found["peers"]:
            limit = Spread.of(figures(found, "limit")).median / us
            low = min(low, limit / 1.25)
            axes.axvline(limit, color=LIMIT, linestyle="--", linewidth=1.2)
            axes.annotate(
                f"limit {number(limit)}", (limit, 1), (0, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="bottom",
            )  # fmt: skip
        high *= (high / low) ** 0.13  # room for the last number
        axes.set_xlim(low, high)
        _ticks(axes.xaxis, low, high)
        axes.set_xlabel(f"{WORDS[unit]}, log scale; left is faster")
        axes.set_title("\n".join(title), pad=20 if "limit" in found["peers"] else 8, fontsize=11, loc="left")
    return figure


def lines(axis: str, found: Found) -> Figure:
    """Median time of a step over the values of an axis, and below it fanin's ratio to torch; log scales."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(5.2)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        known: dict[str, dict[int, float]] = {}
        for name, rounds in found["peers"].items():
            points = {value: sweeps.middle(rounds, place) for place, value in enumerate(sweeps.AXES[axis])}
            known[name] = {value: us for value, us in points.items() if us is not None}
            mine = name.startswith("fanin")
            above.plot(
                list(known[name]), [us / 1e3 for us in known[name].values()], label=name, color=OWN if mine else OTHER,
                marker="D" if mine else "o", linestyle="-" if mine else "--",
            )  # fmt: skip
        above.legend(loc="upper left", frameon=False)
        above.set_ylabel("milliseconds a step")
        above.set_yscale("log")
        _ticks(above.yaxis, *above.get_ylim())
        if {"fanin", "torch"} <= known.keys():
            own, other = known["fanin"], known["torch"]
            ratios = {value: own[value] / other[value] for value in own if value in other}
            below.plot(list(ratios), list(ratios.values()), color=OWN, marker="D")
        below.axhline(1, color=OTHER, linestyle="--")
        below.set_ylim(0, max(1.2, below.get_ylim()[1]))
        below.set_ylabel("fanin / torch")
        below.set_xscale("log")
        values = sweeps.AXES[axis]
        below.xaxis.set_minor_locator(NullLocator())
        below.set_xticks(values, [f"{value:,}" for value in values], rotation=30)
        below.set_xlabel(axis)
        for axes in (above, below):
            axes.grid()
            axes.set_axisbelow(True)
        fixed = ", ".join(f"{name} {value}" for name, value in sweeps.MIDDLE.items() if name != axis)
        above.set_title(f"a training step over {axis} ({fixed}); below 1: fanin is faster", fontsize=11, loc="left")
    return figure


def _figure(height: float) -> Figure:
    """Room around it, as another font may be a little wider."""
    return Figure(figsize=(7.2, height), layout=ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.08))


def _ticks(axis: Any, low: float, high: float) -> None:
    """Plain numbers on a log scale from low to high: as few a decade as give four of them, or evenly spaced ones."""
    decades = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    for digits in ((1,), (1, 3), (1, 2, 5)):
        values = [digit * decade for decade in decades for digit in digits if low <= digit * decade <= high]
        if len(values) >= 4:
            break
    else:
        values = [value for value in MaxNLocator(6).tick_values(low, high) if low <= value <= high]
    axis.set_ticks(values, [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values])
    axis.set_minor_locator(NullLocator())
