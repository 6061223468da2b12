"""`predict` of many rows into an array that is there: seconds, and the memory beyond rows and output.

`python -m benchmarks.memory` prints the table; with a peer's name and a number of rows it prints that peer's record.
Linux only: the peak is read from /proc.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import MILLION, Case, data
from benchmarks.clock import Record
from benchmarks.compare import Found, Spread, figures, share_verdict, take_turns
from benchmarks.rounds import Peer

CHUNK = 10_000  # rows at once, in the plain torch loop and for the limit
PEERS = [Peer("limit"), Peer("fanin"), Peer("torch")]


def resident(field: str) -> int:
    """VmRSS, what is resident now, or VmHWM, the most there was, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, field
    return int(found[1]) * 1024


def predictor(peer: str, case: Case) -> Callable[[Any, Any], None]:
    """A function from rows and an array for the outputs."""
    if peer == "fanin":
        from benchmarks.peers import fanin_

        model = fanin_.model(case)
        return lambda rows, out: model.predict(rows, out=out, verbose=0)
    from benchmarks.peers import torch_

    run = torch_.predict(case)

    def loop(rows: Any, out: Any) -> None:
        for start in range(0, len(rows), CHUNK):
            out[start : start + CHUNK] = run(rows[start : start + CHUNK])

    return loop


def predict(peer: str, rows: int) -> Record:
    """Microseconds for all rows, and the bytes that the peak rose by, less those of the output."""
    case = replace(MILLION, batch=min(rows, CHUNK))
    if peer == "limit":
        from benchmarks import limits

        part = limits.limit(case)
        return {**part, "us": part["us"] * rows / case.batch, "bytes": 0}
    block, _ = data(case)
    x = np.empty((rows, case.widths[0]), np.float32)
    for start in range(0, rows, len(block)):
        x[start : start + len(block)] = block[: rows - start]
    run = predictor(peer, case)
    run(block, np.empty((len(block), case.widths[-1]), np.float32))  # compiles and warms up
    with tempfile.TemporaryDirectory() as folder:
        out = np.memmap(Path(folder) / "out", np.float32, "w+", shape=(rows, case.widths[-1]))
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before, start_time = resident("VmRSS"), time.perf_counter()
        run(x, out)
        seconds, peak = time.perf_counter() - start_time, resident("VmHWM")
        assert np.array_equal(out[: len(block)], out[-len(block) :]) or rows % len(block), "rows were predicted unlike"
    return {"us": seconds * 1e6, "bytes": max(0, peak - before - out.nbytes)}


def main(rounds: int = 3, rows: int = MILLION.batch) -> dict[str, Found]:
    """Measure a quarter of the rows and all, and print the table: constant memory is the same for both."""
    results = {str(number): take_turns("benchmarks.memory", PEERS, rounds, str(number)) for number in (rows // 4, rows)}
    print("\npredict into a file, 784-128-128-10: seconds, and MB beyond the rows and the output")
    for number, found in results.items():
        for name, records in found["peers"].items():
            seconds = Spread.of([value / 1e6 for value in figures(found, name)])
            more = Spread.of([record["bytes"] / 1e6 for record in records])
            print(f"{int(number):>10,} rows  {name:10}{seconds!s:>28}{more.median:12,.1f} MB")
        for name, line in found["failed"].items():
            print(f"FAILED: {name}: {line}")
    assert MILLION.share is not None
    value, met = share_verdict(results[str(rows)], MILLION.share)
    print(f"share of the limit: {value}, target at least {MILLION.share}: {met}")
    return results


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(predict(sys.argv[2], int(sys.argv[1]))))
    else:
        main()
