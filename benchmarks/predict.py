"""Prediction: microseconds from rows to outputs, both numpy arrays, against all peers.

`python -m benchmarks.predict` prints every table, `python -m benchmarks.predict row` one of them; with a peer's name
behind it that peer's record.
"""

from __future__ import annotations

import sys

from benchmarks.cases import CASES, PREDICT
from benchmarks.compare import command_line, measure_case
from benchmarks.figures import Found

ROWS = tuple(case.name for case in PREDICT)


def main(row: str, rounds: int = 5) -> Found:
    """Measure one case and print its table."""
    return measure_case("benchmarks.predict", CASES[row], rounds)


if __name__ == "__main__":
    command_line("benchmarks.predict", PREDICT, sys.argv[1:])
