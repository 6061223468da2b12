"""One call of Dense(128, "relu") on one row of 784, against torch.nn.Sequential(Linear, ReLU) and Keras.

`python -m benchmarks.call` prints the table; with a peer's name it prints that peer's record.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.cases import KERAS, Target
from benchmarks.clock import per_call
from benchmarks.compare import Contest
from benchmarks.figures import Found
from benchmarks.peers import PEERS
from benchmarks.rounds import Peer

CONTEST = Contest(
    'one call of Dense(128, "relu") on one row of 784, gradients on',
    "benchmarks.call",
    (Peer("fanin"), Peer("torch"), *(PEERS[name].peer for name in KERAS)),
    (
        Target(1.0, "torch.nn.Sequential(Linear, ReLU)", ("torch",)),
        Target(0.13, "Keras's best backend", KERAS),
    ),
)


def make_call(peer: str) -> Callable[[], Any]:
    """A function that calls the peer's layer once, its result ready."""
    if peer.startswith("keras"):
        return _keras_call()
    import torch

    row = torch.randn(1, 784)
    if peer == "fanin":
        import fanin

        layer: Any = fanin.layers.Dense(128, "relu")
    else:
        layer = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU())
    return lambda: layer(row)


def _keras_call() -> Callable[[], Any]:
    import keras
    import numpy as np

    row = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(1, 784)).astype("float32"))
    layer = keras.layers.Dense(128, "relu")
    if keras.backend.backend() == "jax":
        return lambda: layer(row).block_until_ready()
    return lambda: layer(row)


def microseconds(peer: str) -> float:
    """The time of a call."""
    return per_call(make_call(peer), 9, 0.15)


def main(rounds: int = 5) -> Found:
    """Measure all peers and print the table."""
    return CONTEST.measure(rounds)


if __name__ == "__main__":
    CONTEST.command_line(microseconds, sys.argv[1:], rounds=5)
