"""A chain of ten Dense(128, "relu") on one row: as a functional model, a Sequential, and in torch.nn.Sequential.

All three call the same kind of layer, so the ratio is what the model adds. `python -m benchmarks.chain` prints the
table; with a peer's name it prints that peer's record.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.cases import Target
from benchmarks.clock import per_call
from benchmarks.compare import Contest
from benchmarks.figures import Found
from benchmarks.peers import PEERS
from benchmarks.rounds import Peer

DEPTH, WIDTH = 10, 128
SAME = "the same layers in torch.nn.Sequential"
CONTEST = Contest(
    'a chain of ten Dense(128, "relu") on one row, gradients on',
    "benchmarks.chain",
    (Peer("fanin-functional"), Peer("fanin-sequential"), Peer("torch-sequential"), PEERS["keras-torch"].peer),
    (
        Target(1.05, SAME, ("torch-sequential",), own="fanin-functional"),
        Target(1.05, SAME, ("torch-sequential",), own="fanin-sequential"),
    ),
    own="fanin-functional",
)


def make_call(peer: str) -> Callable[[], Any]:
    """A function that runs the peer's chain once."""
    import torch

    row = torch.randn(1, WIDTH)
    if peer == "keras-torch":
        import keras as library
    else:
        import fanin as library
    layers = [library.layers.Dense(WIDTH, "relu") for _ in range(DEPTH)]
    if peer == "torch-sequential":
        chain: Any = torch.nn.Sequential(*layers)
    elif peer == "fanin-sequential":
        chain = library.Sequential([library.Input((WIDTH,)), *layers])
    else:
        source = symbol = library.Input((WIDTH,))
        for layer in layers:
            symbol = layer(symbol)
        chain = library.Model(source, symbol)
    return lambda: chain(row)


def microseconds(peer: str) -> float:
    """The time of a call."""
    return per_call(make_call(peer), 9, 0.15)


def main(rounds: int = 7) -> Found:
    """Measure all peers and print the table."""
    return CONTEST.measure(rounds)


if __name__ == "__main__":
    CONTEST.command_line(microseconds, sys.argv[1:], rounds=7)
