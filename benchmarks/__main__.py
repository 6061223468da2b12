"""`python -m benchmarks`: every benchmark, one after another.

Names choose some of them, and part/row one row of a part, as in train/large; `--rounds N` sets how often the peers take
turns; `--save results.json` adds what was found to that file, for `python -m benchmarks.report`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import call, chain, compiling, imports, lora, lora_memory, memory, predict, saved, sweeps, tables, train
from benchmarks.machine import machine, versions

PARTS: dict[str, Callable[..., Any]] = {
    "imports": imports.main,
    "call": call.main,
    "chain": chain.main,
    "tables": lambda **_: tables.main(),  # has no rounds
    "train": train.main,
    "predict": predict.main,
    "lora": lora.main,
    "lora-memory": lora_memory.main,
    "compiling": compiling.main,
    "memory": memory.main,
    "sweeps": sweeps.main,
}
ROWS = {"train": train.ROWS, "predict": predict.ROWS, "sweeps": sweeps.ROWS}


def chosen(names: list[str]) -> Iterator[tuple[str, str]]:
    """(part, row) for each name, all rows of a part where none is named; ValueError for what there is not."""
    for name in names or PARTS:
        part, _, row = name.partition("/")
        rows = ROWS.get(part, ("",))
        if part not in PARTS or (row and row not in rows):
            known = ", ".join(rows if part in PARTS and part in ROWS else PARTS)
            raise ValueError(f"there is no {name}, but: {known}")
        yield from ((part, one) for one in rows if row in ("", one))


def main(arguments: list[str] | None = None) -> None:
    """Run the parts; what is saved is written after each row of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all of them unless named")
    parser.add_argument("--rounds", type=int, help="how often the peers take turns; each part has its own number")
    parser.add_argument("--save", type=Path, metavar="FILE", help="a JSON file to add what was found to")
    asked = parser.parse_args(arguments)
    try:
        work = list(chosen(asked.parts))
        if asked.save:
            saved.read(asked.save)  # complains now rather than after minutes
    except ValueError as error:
        parser.error(str(error))
    where = {"machine": machine(), "versions": versions()}
    print("\n".join(where.values()), flush=True)
    for part, row in work:
        options = {"row": row} if row else {}
        if asked.rounds:
            options["rounds"] = asked.rounds
        start = time.perf_counter()
        found = PARTS[part](**options)
        entry = {"found": found, "rounds": asked.rounds, "seconds": round(time.perf_counter() - start, 1), **where}
        key = f"{part}/{row}" if row else part
        print(f"({key}: {entry['seconds']} s)", flush=True)
        if asked.save:
            saved.put(asked.save, key, entry)


if __name__ == "__main__":
    main()
