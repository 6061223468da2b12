"""Training: microseconds a step of `fit`, a loop or a scan, against all peers.

`python -m benchmarks.train` prints every table, `python -m benchmarks.train small` one of them; with a peer's name
behind it that peer's record.
"""

from __future__ import annotations

import sys

from benchmarks.cases import CASES, TRAIN
from benchmarks.compare import command_line, measure_case
from benchmarks.figures import Found

ROWS = tuple(case.name for case in TRAIN)


def main(row: str, rounds: int = 5) -> Found:
    """Measure one case and print its table."""
    return measure_case("benchmarks.train", CASES[row], rounds)


if __name__ == "__main__":
    command_line("benchmarks.train", TRAIN, sys.argv[1:])
