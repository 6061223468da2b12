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
from benchmarks.compare import Found, take_turns
from benchmarks.peers import find
from benchmarks.rounds import Peer

AXES = {
    "width": (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
    "depth": (1, 2, 3, 10, 30, 100, 300),
    "batch": (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536),
}
MIDDLE = {"width": 256, "depth": 2, "batch": 128}
LONGEST, TIMED, MOST = 1.0, 0.4, 200  # seconds of a step, seconds of a point, steps of a point
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


def show(axis: str, found: Found) -> None:
    """Print microseconds a step and the ratio, for each value of an axis."""
    fixed = ", ".join(f"{name} {value}" for name, value in MIDDLE.items() if name != axis)
    print(f"\na step over {axis} ({fixed}): us, and seconds to the first result")
    for place, value in enumerate(AXES[axis]):
        line, figures = f"{axis} {value:>6}", {}
        for name, rounds in found["peers"].items():
            figures[name] = middle(rounds, place)
            first = middle(rounds, place, "first")
            line += f"   {name}: " + (
                "left out" if figures[name] is None else f"{figures[name]:12,.1f} ({first:.2f} s)"
            )
        own, other = figures.get("fanin"), figures.get("torch")
        print(line + (f"   fanin / torch {own / other:.3f}" if own and other else ""))
    for name, error in found["failed"].items():
        print(f"FAILED: {name}: {error}")


def main(rounds: int = 3) -> dict[str, Found]:
    """Measure all axes and print the tables."""
    results = {}
    for axis in AXES:
        results[axis] = take_turns("benchmarks.sweeps", PEERS, rounds, axis)
        show(axis, results[axis])
    return results


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(sweep(sys.argv[1], sys.argv[2])))
    else:
        main()
