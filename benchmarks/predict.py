"""Prediction: microseconds from rows to outputs, both numpy arrays, against all peers.

`python -m benchmarks.predict` prints every table, `python -m benchmarks.predict row` one of them; with a peer's name
behind it that peer's record.
"""

from __future__ import annotations

import sys

from benchmarks.cases import PREDICT
from benchmarks.compare import Found, command_line, measure_all


def main(rounds: int = 5) -> dict[str, Found]:
    """Measure all cases and print the tables."""
    return measure_all("benchmarks.predict", PREDICT, rounds)


if __name__ == "__main__":
    command_line("benchmarks.predict", PREDICT, sys.argv[1:])
