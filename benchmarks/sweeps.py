"""How the cost of a training step grows with width, depth and batch: `compile_step` beside the plain torch loop.

`python -m benchmarks.sweeps` prints every point; with an axis and a peer's name it prints that peer's records. A point
whose step takes more than LONGEST seconds is left out.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.cases import Case, data
from benchmarks.clock import Record
from benchmarks.compare import show_absent, take_turns
from benchmarks.figures import Found, Spread
from benchmarks.peers import find
from benchmarks.rounds import Peer

AXES = {
    "width": (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
    "depth": (1, 2, 3, 10, 30, 100, 300),
    "batch": (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536),
}
ROWS = tuple(AXES)
MIDDLE = {"width": 256, "depth": 2, "batch": 128}
LONGEST, TIMED, MOST = 4.0, 0.4, 200  # seconds of a step, seconds of a point, steps of a point
PEERS = [Peer("fanin"), Peer("torch")]


def at(axis: str, value: int) -> Case:
    """The middle of all axes, but for one value: `depth` hidden layers of `width`, and ten outputs."""
    size = {**MIDDLE, axis: value}
    widths = (*(size["width"],) * (size["depth"] + 1), 10)
    return Case(f"{axis}-{value}", f"{axis} {value}", widths, size["batch"], ("fanin", "torch"), steps=1)


def point(name: str, case: Case) -> Record:
    """The seconds to the first result, and the median of the microseconds of a step afterwards (None: too long)."""
    import torch

    x, y = map(torch.from_numpy, data(case))
    start = time.perf_counter()
    step = find(f"{name}_:stepper")(case)
    found = float(step(x, y))
    record: Record = {"first": time.perf_counter() - start, "losses": [found]}
    seconds: list[float] = []
    while not seconds or (sum(seconds) < TIMED and len(seconds) < MOST):
        start = time.perf_counter()
        found = float(step(x, y))
        seconds.append(time.perf_counter() - start)
        if seconds[0] > LONGEST:
            return {**record, "us": None}
    record["losses"].append(found)
    return {**record, "us": statistics.median(seconds) * 1e6}


def sweep(axis: str, name: str) -> list[Record]:
    """A record for each value of the axis; values beyond one that took too long are not tried."""
    point(name, at(axis, AXES[axis][0]))  # torch imports parts of itself
    found: list[Record] = []
    for value in AXES[axis]:
        if found and found[-1]["us"] is None:
            found.append({"us": None})
        else:
            found.append(point(name, at(axis, value)))
    return found


def middle(rounds: Sequence[Sequence[Record]], place: int, key: str = "us") -> float | None:
    """The median over the rounds of one point of a sweep; None if a round left it out."""
    values: list[Any] = [one[place][key] if one[place]["us"] is not None else None for one in rounds]
    return None if None in values else float(statistics.median(values))


def ratio(found: Found, place: int) -> Spread | None:
    """fanin / torch at one point, round by round; None if one of them left it out."""
    if any(name not in found["peers"] or middle(found["peers"][name], place) is None for name in ("fanin", "torch")):
        return None
    pairs = zip(found["peers"]["fanin"], found["peers"]["torch"], strict=True)
    return Spread.of([own[place]["us"] / other[place]["us"] for own, other in pairs])


def show(axis: str, found: Found) -> None:
    """Print microseconds a step and the ratio, for each value of an axis."""
    fixed = ", ".join(f"{name} {value}" for name, value in MIDDLE.items() if name != axis)
    print(f"\na step over {axis} ({fixed}): us, and seconds to the first result")
    for place, value in enumerate(AXES[axis]):
        line = f"{axis} {value:>6}"
        for name, rounds in found["peers"].items():
            us, first = middle(rounds, place), middle(rounds, place, "first")
            line += f"   {name}: " + ("left out" if us is None else f"{us:12,.1f} ({first:.2f} s)")
        spread = ratio(found, place)
        print(line + (f"   fanin / torch {spread}" if spread else ""))
    show_absent(found)


def main(row: str, rounds: int = 3) -> Found:
    """Measure one axis and print its table."""
    found = take_turns("benchmarks.sweeps", PEERS, rounds, row)
    show(row, found)
    return found


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(sweep(sys.argv[1], sys.argv[2])))
    else:
        for axis in sys.argv[1:] or AXES:
            main(axis)
