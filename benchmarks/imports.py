"""How long `import fanin` takes, against `import torch` and `import keras`, in fresh processes.

`python -m benchmarks.imports` prints the table; with a peer's name it prints that import's milliseconds.
"""

from __future__ import annotations

import importlib
import sys
import time

from benchmarks.rounds import Peer, measure, show

PEERS = [Peer("fanin"), Peer("torch"), Peer("keras", ("keras",), {"KERAS_BACKEND": "torch"})]


def main(rounds: int = 7) -> None:
    """Measure all peers and print the table."""
    found = measure("benchmarks.imports", PEERS, rounds)
    show("import, in a fresh process", "ms", found, "fanin")
    print("target: at most 1.25 times torch")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        start = time.perf_counter()
        importlib.import_module(sys.argv[1])
        print((time.perf_counter() - start) * 1000)
    else:
        main()
