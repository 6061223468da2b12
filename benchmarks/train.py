"""Training: microseconds a step of `fit`, a loop or a scan, against all peers.

`python -m benchmarks.train` prints every table, `python -m benchmarks.train small` one of them; with a peer's name
behind it that peer's record.
"""

from __future__ import annotations

import sys

from benchmarks.cases import TRAIN
from benchmarks.compare import Found, command_line, measure_all


def main(rounds: int = 5) -> dict[str, Found]:
    """Measure all cases and print the tables."""
    return measure_all("benchmarks.train", TRAIN, rounds)


if __name__ == "__main__":
    command_line("benchmarks.train", TRAIN, sys.argv[1:])
