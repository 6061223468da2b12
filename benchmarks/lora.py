"""A step of fine-tuning with LoRA: three Dense(2048, relu), rank 8, batch 256, Adam; milliseconds.

`python -m benchmarks.lora` prints the table; with a peer's name it prints that peer's milliseconds a step.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.rounds import Peer, measure, show

WIDTH, RANK, ROWS = 2048, 8, 256
PEERS = [
    Peer("fanin"),
    Peer("products"),
    Peer("fanin-full"),
    Peer("fanin-linear"),
    Peer("fanin-64"),
    Peer("peft", ("peft",)),
    Peer("fanin-bf16"),
    Peer("peft-bf16", ("peft",)),
    Peer("fanin-64-predict"),
    Peer("peft-64-predict", ("peft",)),
    Peer("keras-jax", ("keras", "jax"), {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}),
    Peer("keras-tensorflow", ("keras", "tensorflow"), {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}),
]
TARGETS = [
    ("fanin", "peft", 0.88),
    ("fanin", "keras-jax", 0.43),
    ("fanin", "keras-tensorflow", 0.43),
    ("fanin", "fanin-full", 0.63),
    ("fanin", "products", 1.12),
    ("fanin-linear", "peft", 0.88),
    ("fanin-bf16", "peft-bf16", 0.55),
    ("fanin-64", "fanin", 1.35),
    ("fanin-64-predict", "peft-64-predict", 0.6),
]


def make_step(peer: str) -> Callable[[], Any]:
    """A function that makes one step of the peer, its result ready."""
    if peer.startswith("keras"):
        return _keras()
    if peer.startswith("peft"):
        return _peft(peer)
    return _products() if peer == "products" else _fanin(peer)


def _data() -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    return torch.randn(ROWS, WIDTH), torch.randn(ROWS, WIDTH)


def _linears() -> Any:
    import torch

    layers = [part for _ in range(3) for part in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers)


def _fanin(peer: str) -> Callable[[], Any]:
    import torch

    import fanin
    from fanin import adapters

    x, y = _data()
    if peer == "fanin-bf16":
        fanin.config.set_dtype_policy("mixed_bfloat16")
    rank = RANK if peer in ("fanin", "fanin-bf16") else None
    model: Any = fanin.Sequential(
        [fanin.Input((WIDTH,)), *(fanin.layers.Dense(WIDTH, "relu", lora_rank=rank) for _ in range(3))]
    )
    if peer == "fanin-linear":
        model = _linears()
        adapters.add(model, "one", rank=RANK)
        adapters.set_active(model, "one")
    if not peer.startswith("fanin-64"):
        step = fanin.compile_step(model, torch.nn.functional.mse_loss, fanin.optimizers.Adam(1e-4))
        return lambda: step(x, y)
    for number in range(64):
        adapters.add(model, f"a{number}", rank=RANK)
    names = [f"a{number}" for number in torch.randint(64, (ROWS,)).tolist()]
    block = adapters.rows(model, names)
    block.__enter__()
    if peer.endswith("predict"):
        run = fanin.compile_predict(model, x)
        return lambda: run(x)
    step = fanin.compile_step(model, torch.nn.functional.mse_loss, fanin.optimizers.Adam(1e-4))
    step.block = block  # type: ignore[attr-defined]  # kept open as long as the step
    return lambda: step(x, y)


def _peft(peer: str) -> Callable[[], Any]:
    import peft
    import torch

    x, y = _data()
    config = peft.LoraConfig(r=RANK, target_modules=["0", "2", "4"])
    model: Any = peft.get_peft_model(_linears(), config)
    if peer.endswith("predict"):
        for number in range(64):
            model.add_adapter(f"a{number}", config)
        names = [f"a{number}" for number in torch.randint(64, (ROWS,)).tolist()]
        model.eval()

        def predict() -> Any:
            with torch.no_grad():
                return model(x, adapter_names=names)

        return predict
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-4, fused=True)

    def step() -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=peer == "peft-bf16"):
            loss = torch.nn.functional.mse_loss(model(x).float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def _products() -> Callable[[], Any]:
    """The five products of this size that no step can do without: three forward, two for gradients of inputs."""
    import torch

    x, _ = _data()
    kernels = [torch.randn(WIDTH, WIDTH) for _ in range(5)]
    out = torch.empty(ROWS, WIDTH)

    def run() -> Any:
        with torch.inference_mode():
            for kernel in kernels[:3]:
                torch.mm(x, kernel, out=out)
            for kernel in kernels[3:]:
                torch.mm(x, kernel.t(), out=out)

    return run


def _keras() -> Callable[[], Any]:
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(ROWS, WIDTH)).astype("float32") for _ in range(2))
    layers = [keras.layers.Dense(WIDTH, "relu", lora_rank=RANK) for _ in range(3)]
    model = keras.Sequential([keras.Input((WIDTH,)), *layers])
    model.compile(keras.optimizers.Adam(1e-4), "mse")
    return lambda: model.train_on_batch(x, y)


def milliseconds(step: Callable[[], Any], seconds: float = 4.0) -> float:
    """The median time of a step."""
    for _ in range(5):
        step()
    found: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(found) < 9:
        start = time.perf_counter()
        step()
        found.append((time.perf_counter() - start) * 1e3)
    return statistics.median(found)


def main(rounds: int = 5) -> dict[str, list[float]]:
    """Measure all peers and print the table, then the targets."""
    found = measure("benchmarks.lora", PEERS, rounds)
    show("LoRA: three Dense(2048, relu), rank 8, batch 256, Adam", "ms", found, "fanin")
    for own, peer, target in TARGETS:
        if own in found and peer in found:
            ratios = [a / b for a, b in zip(found[own], found[peer], strict=True)]
            verdict = "met" if statistics.median(ratios) <= target else "missed"
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"{own} / {peer}: {statistics.median(ratios):.3f} ({spread}), target at most {target}: {verdict}")
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(milliseconds(make_step(sys.argv[1])))
    else:
        main()
