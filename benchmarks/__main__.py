"""`python -m benchmarks`: every benchmark, one after another.

Names choose some of them; `--rounds N` sets how often the peers take turns; `--save results.json` writes what was
found, for `python -m benchmarks.report`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import call, chain, compiling, imports, lora, memory, predict, sweeps, tables, train

PARTS: dict[str, Callable[..., Any]] = {
    "imports": imports.main,
    "call": call.main,
    "chain": chain.main,
    "tables": lambda **_: tables.main(),  # has no rounds
    "train": train.main,
    "predict": predict.main,
    "lora": lora.main,
    "compiling": compiling.main,
    "memory": memory.main,
    "sweeps": sweeps.main,
}


def main() -> None:
    """Run the parts; what is saved is written after each of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all of them unless named")
    parser.add_argument("--rounds", type=int, help="how often the peers take turns; each part has its own number")
    parser.add_argument("--save", type=Path, help="a JSON file for what was found")
    asked = parser.parse_args()
    if unknown := [name for name in asked.parts if name not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}")
    machine = f"{platform.machine()}, {os.cpu_count()} processors"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{machine}, {versions}")
    results: dict[str, Any] = {"machine": machine, "versions": versions}
    for name in asked.parts or PARTS:
        found = PARTS[name](**({"rounds": asked.rounds} if asked.rounds else {}))
        if found is not None:
            results[name] = found
        if asked.save:
            asked.save.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
