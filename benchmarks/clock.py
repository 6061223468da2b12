"""How a figure comes about: microseconds a step over epochs, and microseconds a call."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.cases import Case

Record = dict[str, Any]


def per_step(epoch: Callable[[], float], case: Case) -> Record:
    """An epoch that compiles and warms up, then the timed ones. `epoch` waits for its work and returns its loss."""
    losses, ends = [], []
    for _ in range(case.epochs + 1):
        losses.append(float(epoch()))
        ends.append(time.perf_counter())
    return between(ends, losses, case)


def between(ends: Sequence[float], losses: Sequence[float], case: Case) -> Record:
    """The same from the times at which a `fit` ended its epochs: the first only gives the start of the second."""
    seconds = [end - start for start, end in itertools.pairwise(ends)]
    return {"us": statistics.median(seconds) / case.steps * 1e6, "losses": [float(loss) for loss in losses]}


def per_call(call: Callable[[], Any], repeats: int = 7, seconds: float = 0.1) -> float:
    """Microseconds a call: the median of `repeats` means, each over about `seconds`, after as long a warm-up."""
    call()
    number, passed, start = 0, 0.0, time.perf_counter()
    while passed < seconds:
        call()
        number, passed = number + 1, time.perf_counter() - start
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(number):
            call()
        found.append((time.perf_counter() - start) / number * 1e6)
    return statistics.median(found)
