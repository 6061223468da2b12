"""One call of Dense(128, "relu") on one row of 784, against torch.nn.Sequential(Linear, ReLU) and Keras.

`python -m benchmarks.call` prints the table; with a peer's name it prints that peer's microseconds a call.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.rounds import Peer, measure, show

PEERS = [
    Peer("fanin"),
    Peer("torch"),
    Peer("keras-torch", ("keras",), {"KERAS_BACKEND": "torch"}),
    Peer("keras-jax", ("keras", "jax"), {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}),
    Peer("keras-tensorflow", ("keras", "tensorflow"), {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}),
]


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


def microseconds(call: Callable[[], Any], repeats: int = 9, seconds: float = 0.15) -> float:
    """The median over `repeats` of the mean time of a call."""
    for _ in range(200):
        call()
    start = time.perf_counter()
    for _ in range(200):
        call()
    number = max(50, int(seconds / ((time.perf_counter() - start) / 200)))
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(number):
            call()
        found.append((time.perf_counter() - start) / number * 1e6)
    return statistics.median(found)


def main(rounds: int = 5) -> None:
    """Measure all peers and print the table."""
    found = measure("benchmarks.call", PEERS, rounds)
    show('Dense(128, "relu") on one row of 784, gradients on', "us", found, "fanin")
    best = min(
        (name for name in found if name.startswith("keras")), key=lambda n: statistics.median(found[n]), default=""
    )
    if best:
        ratio = statistics.median(own / other for own, other in zip(found["fanin"], found[best], strict=True))
        print(f"against Keras's best backend here ({best}): {ratio:.3f}, target at most 0.13")
    ratio = statistics.median(own / other for own, other in zip(found["fanin"], found["torch"], strict=True))
    print(f"against torch.nn.Sequential(Linear, ReLU): {ratio:.3f}, target at most 1")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(microseconds(make_call(sys.argv[1])))
    else:
        main()
