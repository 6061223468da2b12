"""How long `import fanin` takes, against `import torch` and `import keras`, in fresh processes.

`python -m benchmarks.imports` prints the table.
"""

from __future__ import annotations

from benchmarks.cases import Target
from benchmarks.compare import Contest
from benchmarks.figures import Found
from benchmarks.rounds import Peer

CONTEST = Contest(
    "import, in a fresh process",
    "benchmarks.importing",
    (Peer("fanin"), Peer("torch"), Peer("keras", ("keras",), {"KERAS_BACKEND": "torch"})),
    (Target(1.25, "torch", ("torch",)),),
)


def main(rounds: int = 7) -> Found:
    """Measure all peers and print the table."""
    return CONTEST.measure(rounds)


if __name__ == "__main__":
    main()
