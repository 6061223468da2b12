"""The pictures of a report: a bar for each peer of a case, and lines over the values of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks import sweeps
from benchmarks.compare import Found, Spread, figures

OWN, OTHER, LIMIT = "#c2410c", "#64748b", "#15803d"


def _axes(width: float, height: float) -> Any:
    return Figure(figsize=(width, height)).subplots()


def _save(axes: Any, path: Path) -> None:
    with matplotlib.rc_context({"svg.hashsalt": "fanin"}):  # the same picture is the same file
        axes.figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def bars(title: str, found: Found, path: Path) -> None:
    """Median microseconds of each peer, fastest on top, from the least to the most; the limit is a line."""
    spreads = {name: Spread.of(figures(found, name)) for name in found["peers"] if name != "limit"}
    names = sorted(spreads, key=lambda name: -spreads[name].median)
    axes = _axes(7, 0.8 + 0.32 * len(names))
    for place, name in enumerate(names):
        one = spreads[name]
        error = [[one.median - one.least], [one.most - one.median]]
        axes.barh(place, one.median, xerr=error, color=OWN if name.startswith("fanin") else OTHER)
    axes.set_yticks(range(len(names)), names)
    if "limit" in found["peers"]:
        limit = Spread.of(figures(found, "limit")).median
        axes.axvline(limit, color=LIMIT, linestyle="--", label=f"limit: {limit:,.1f}")
        axes.legend()
    axes.set_xscale("log")
    axes.set_xlabel("microseconds (log scale)")
    axes.set_title(title)
    _save(axes, path)


def lines(axis: str, found: Found, path: Path) -> None:
    """Median microseconds of a step over the values of an axis, both on log scales."""
    axes = _axes(6, 4)
    for name, rounds in found["peers"].items():
        points = [(value, sweeps.middle(rounds, place)) for place, value in enumerate(sweeps.AXES[axis])]
        known = [point for point in points if point[1] is not None]
        axes.plot(*zip(*known, strict=True), marker="o", label=name, color=OWN if name == "fanin" else OTHER)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(axis)
    axes.set_ylabel("microseconds a step")
    axes.legend()
    _save(axes, path)
