"""A chain of ten Dense(128, "relu") on one row: as a functional model, a Sequential, and in torch.nn.Sequential.

All three call the same kind of layer, so the ratio is what the model adds. `python -m benchmarks.chain` prints the
table; with a peer's name it prints that peer's microseconds a call.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.call import microseconds
from benchmarks.rounds import Peer, measure, show

DEPTH, WIDTH = 10, 128
PEERS = [
    Peer("functional"),
    Peer("sequential"),
    Peer("torch-sequential"),
    Peer("keras-torch", ("keras",), {"KERAS_BACKEND": "torch"}),
]


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
    elif peer == "sequential":
        chain = library.Sequential([library.Input((WIDTH,)), *layers])
    else:
        source = symbol = library.Input((WIDTH,))
        for layer in layers:
            symbol = layer(symbol)
        chain = library.Model(source, symbol)
    return lambda: chain(row)


def main(rounds: int = 7) -> None:
    """Measure all peers and print the table."""
    found = measure("benchmarks.chain", PEERS, rounds)
    show('ten Dense(128, "relu") on one row, gradients on', "us", found, "torch-sequential")
    for name in ("functional", "sequential"):
        pairs = zip(found[name], found["torch-sequential"], strict=True)
        ratio = statistics.median(own / other for own, other in pairs)
        print(f"{name} against the same layers in torch.nn.Sequential: {ratio:.3f}, target at most 1.05")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(microseconds(make_call(sys.argv[1])))
    else:
        main()
