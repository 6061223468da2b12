"""How long the first step of fit 784-128-128-10, batch 32, takes: building the model, tracing, compiling, one step.

Torch imports parts of itself when it first traces. So each peer runs twice in a round: once as it is, and once with
every module already imported that it imported in that first run, its own excepted. `python -m benchmarks.compiling`
prints the table; with a peer's name it prints that peer's seconds, and the modules.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import sys
import time
from typing import Any

from benchmarks.cases import TRAIN, data
from benchmarks.compare import ask, show_absent
from benchmarks.figures import Found, Spread
from benchmarks.peers import CPU, find
from benchmarks.rounds import Peer

CASE = TRAIN[0]
AT_MOST = 0.5
COLD = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
STEPPERS = {
    "fanin": "fanin_:stepper",
    "torch": "torch_:stepper",
    "torch-compile": "torch_:compiled_stepper",
    "jax-step": "jax_:stepper",
}
PEERS = [Peer("fanin"), Peer("torch"), Peer("torch-compile", (), COLD, slow=True), Peer("jax-step", ("jax",), CPU)]


def first_step(name: str, ahead: list[str]) -> dict[str, Any]:
    """The seconds to the first result, and the modules that were imported on the way."""
    make = find(STEPPERS[name])
    for module in ahead:
        with contextlib.suppress(Exception):  # some can only be imported from within another
            importlib.import_module(module)
    x, y = data(CASE)
    if name != "jax-step":
        import torch

        x, y = torch.from_numpy(x), torch.from_numpy(y)
    before = set(sys.modules)
    start = time.perf_counter()
    loss = float(make(CASE)(x[: CASE.batch], y[: CASE.batch]))
    seconds = time.perf_counter() - start
    new = [module for module in sys.modules if module not in before and module.split(".")[0] != "fanin"]
    return {"seconds": seconds, "loss": loss, "modules": new}


def measure(rounds: int) -> Found:
    """For each peer and round the seconds as it is, and with its imports done."""
    found: Found = {"peers": {}, "missing": {}, "failed": {}}
    for number, peer in itertools.product(range(rounds), PEERS):
        if number >= peer.rounds(rounds):
            continue
        if missing := peer.missing():
            found["missing"][peer.name] = missing
        elif peer.name not in found["failed"]:
            try:
                cold = ask(peer, "benchmarks.compiling", peer.name, stdin="[]")
                warm = ask(peer, "benchmarks.compiling", peer.name, stdin=json.dumps(cold["modules"]))
            except RuntimeError as error:
                found["failed"][peer.name] = str(error)
                found["peers"].pop(peer.name, None)
                continue
            record = {"first": cold["seconds"], "imported": warm["seconds"], "modules": len(cold["modules"])}
            found["peers"].setdefault(peer.name, []).append(record)
    return found


def verdict(found: Found) -> tuple[str, str]:
    """fanin's seconds with the imports done, and whether they meet the target."""
    if "fanin" not in found["peers"]:
        return "-", "not measured"
    spread = Spread.of([record["imported"] for record in found["peers"]["fanin"]])
    return f"{spread} s", "met" if spread.median <= AT_MOST else "missed"


def ratio(found: Found, name: str) -> Spread | None:
    """fanin / peer with the imports done, round by round; None without fanin."""
    own = found["peers"].get("fanin", [])
    values = [one["imported"] / other["imported"] for one, other in zip(own, found["peers"][name], strict=False)]
    return Spread.of(values) if values else None


def main(rounds: int = 3) -> Found:
    """Measure all peers and print the table."""
    found = measure(rounds)
    print(
        "\nseconds to the first result of a step, 784-128-128-10, batch 32: as it is, and with its imports done before"
    )
    for name, records in found["peers"].items():
        spreads = [Spread.of([record[key] for record in records]) for key in ("first", "imported")]
        print(f"{name:18}{spreads[0]!s:>28}{spreads[1]!s:>28}")
    print(f"fanin with the imports done: {' '.join(verdict(found))}, target at most {AT_MOST} s")
    show_absent(found)
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(first_step(sys.argv[1], json.loads(sys.stdin.read()))))
    else:
        main()
