"""`predict` of many rows into an array that is there: seconds, and the memory beyond rows and output.

`python -m benchmarks.memory` prints the table; with a peer's name and a number of rows it prints that peer's record.
Linux only: the peak is read from /proc.
"""

from __future__ import annotations

import json
import re
import statistics
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
from benchmarks.compare import show_absent, take_turns
from benchmarks.figures import Found, Spread, figures, ratio, share_verdict
from benchmarks.rounds import Peer

CHUNK = 10_000  # rows at once, in the plain torch loop and for the limit; fanin's `predict` chooses for itself
PEERS = [Peer("limit"), Peer("fanin"), Peer("fanin-batch-32"), Peer("torch")]


def resident(field: str) -> int:
    """VmRSS, what is resident now, or VmHWM, the most there was, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, field
    return int(found[1]) * 1024


def predictor(peer: str, case: Case) -> Callable[[Any, Any], None]:
    """A function from rows and an array for the outputs."""
    if peer.startswith("fanin"):
        from benchmarks.peers import fanin_

        model, size = fanin_.model(case), None if peer == "fanin" else 32
        return lambda rows, out: model.predict(rows, batch_size=size, out=out, verbose=0)
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


def table(results: dict[str, Found]) -> list[list[str]]:
    """Heads, and a row for each number of rows and peer."""
    lines = [["rows", "", "seconds", "MB more", "fanin / peer"]]
    for number, found in results.items():
        for name, records in found["peers"].items():
            seconds = Spread.of([value / 1e6 for value in figures(found, name)])
            more = "" if name == "limit" else f"{statistics.median(record['bytes'] for record in records) / 1e6:,.1f}"
            compared = "fanin" in found["peers"] and name not in ("limit", "fanin")
            ratios = str(ratio(found, "fanin", name)) if compared else ""
            lines.append([f"{int(number):,}", name, str(seconds), more, ratios])
    return lines


def verdict(results: dict[str, Found]) -> tuple[str, str, str, str]:
    """(what, asked, found, whether it is met) for the share of the limit, of all rows."""
    assert MILLION.share is not None
    whole = results[max(results, key=int)]
    return "share of the limit", f"at least {MILLION.share}", *share_verdict(whole, MILLION.share)


def main(rounds: int = 3, rows: int = MILLION.batch) -> dict[str, Found]:
    """Measure a quarter of the rows and all, and print the table: constant memory is the same for both."""
    results = {str(number): take_turns("benchmarks.memory", PEERS, rounds, str(number)) for number in (rows // 4, rows)}
    print("\npredict into a file, 784-128-128-10: seconds, and MB beyond the rows and the output")
    for row in table(results):
        print(f"{row[0]:>10}  {row[1]:16}{row[2]:>28}{row[3]:>12}{row[4]:>28}")
    for found in results.values():
        show_absent(found)
    what, asked, value, met = verdict(results)
    print(f"{what}: {value}, target {asked}: {met}")
    return results


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(predict(sys.argv[2], int(sys.argv[1]))))
    else:
        main()
