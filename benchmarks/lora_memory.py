"""Memory that training takes above `import fanin`, at its peak: LoRA against full fine-tuning; MB.

Three Dense(2048, relu), rank 8, batch 256, Adam: the model is built, compiled, and fitted for a few steps. `python -m
benchmarks.lora_memory` prints the table; with a peer's name it prints that peer's record. Linux only: the peak is read
from /proc.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clock import Record
from benchmarks.compare import show_absent, take_turns
from benchmarks.figures import Found, Spread
from benchmarks.memory import resident
from benchmarks.rounds import Peer

WIDTH, RANK, ROWS, STEPS = 2048, 8, 256, 6
PEERS = [Peer("lora"), Peer("full"), Peer("lora-torch"), Peer("full-torch")]
TARGET = 0.5  # lora / full


def train(peer: str) -> Record:
    """The bytes that the peak rose by, and what is left of them after training."""
    import torch

    import fanin

    fanin.utils.set_random_seed(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    x, y = (np.random.rand(ROWS, WIDTH).astype(np.float32) for _ in range(2))
    if peer.endswith("torch"):
        _train_torch(torch.from_numpy(x), torch.from_numpy(y), peer.startswith("lora"))
    else:
        rank = RANK if peer == "lora" else None
        layers = [fanin.layers.Dense(WIDTH, "relu", lora_rank=rank) for _ in range(3)]
        model = fanin.Sequential([fanin.Input((WIDTH,)), *layers])
        model.compile(fanin.optimizers.Adam(1e-4), "mse")
        model.fit(x, y, batch_size=ROWS, epochs=STEPS, verbose=0)
    return {"bytes": resident("VmHWM") - before, "left": resident("VmRSS") - before}


def _train_torch(x: Any, y: Any, is_lora: bool) -> None:
    """The plain loop, for comparison: what torch's own operations and its Adam hold."""
    import torch
    from torch import nn
    from torch.nn import functional

    kernels = [nn.Parameter(torch.randn(WIDTH, WIDTH), requires_grad=not is_lora) for _ in range(3)]
    biases = [nn.Parameter(torch.zeros(WIDTH)) for _ in range(3)]
    pairs = [(nn.Parameter(torch.randn(WIDTH, RANK)), nn.Parameter(torch.zeros(RANK, WIDTH))) for _ in range(3)]
    trained = [*biases, *(part for pair in pairs for part in pair)] if is_lora else [*kernels, *biases]
    optimizer = torch.optim.Adam(trained, 1e-4, fused=True)
    for _ in range(STEPS):
        value = x
        for kernel, bias, (a, b) in zip(kernels, biases, pairs, strict=True):
            wide = torch.addmm(bias, value, kernel)
            value = torch.relu(torch.addmm(wide, value @ a, b) if is_lora else wide)
        optimizer.zero_grad()
        functional.mse_loss(value, y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def megabytes(found: Found, name: str, key: str = "bytes") -> list[float]:
    """Of each round."""
    return [record[key] / 1e6 for record in found["peers"][name]]


def verdict(found: Found) -> tuple[str, str]:
    """lora / full, and whether the target is met: "met", "missed" or "not measured"."""
    if not {"lora", "full"} <= set(found["peers"]):
        return "-", "not measured"
    pairs = zip(megabytes(found, "lora"), megabytes(found, "full"), strict=True)
    spread = Spread.of([own / other for own, other in pairs])
    return str(spread), "met" if spread.median <= TARGET else "missed"


def main(rounds: int = 3) -> Found:
    """Measure all peers and print the table, then the target."""
    found = take_turns("benchmarks.lora_memory", PEERS, rounds)
    print("\nmemory of training above `import fanin`: three Dense(2048, relu), rank 8, batch 256, Adam; MB")
    print(f"{'':12}{'peak (least to most)':>32}{'left after':>12}")
    for name in found["peers"]:
        left = statistics.median(megabytes(found, name, "left"))
        print(f"{name:12}{Spread.of(megabytes(found, name))!s:>32}{left:12,.1f}")
    show_absent(found)
    value, met = verdict(found)
    print(f"lora / full: {value}, target at most {TARGET}: {met}")
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(train(sys.argv[1])))
    else:
        main()
