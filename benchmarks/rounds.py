"""Peers measured in turn, each in a process of its own, and the table of what came out.

A process per peer, one after another: a thread pool that one library leaves spinning would slow the next.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Peer:
    """One contestant: a name, the packages it needs, and its environment.

    A peer that cannot live in the same environment is run by the Python that BENCH_PYTHON_<NAME> names, as in
    BENCH_PYTHON_KERAS_TENSORFLOW=../tf/bin/python. A slow one takes part in a third of the rounds, the first ones.
    """

    name: str
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    slow: bool = False

    def python(self) -> str:
        return os.environ.get("BENCH_PYTHON_" + self.name.upper().replace("-", "_"), sys.executable)

    def rounds(self, rounds: int) -> int:
        return max(1, rounds // 3) if self.slow else rounds

    def missing(self) -> list[str]:
        look = "import importlib.util as u, sys; print(*[p for p in sys.argv[1:] if u.find_spec(p) is None])"
        command = [self.python(), "-c", look, *self.needs]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def measure(module: str, peers: Sequence[Peer], rounds: int) -> dict[str, list[float]]:
    """The figure of each peer in each round; peers take turns within a round. A peer that fails once is out."""
    found: dict[str, list[float]] = {}
    for peer in peers:
        if missing := peer.missing():
            print(f"left out: {peer.name} (not installed: {', '.join(missing)})")
        else:
            found[peer.name] = []
    for number in range(rounds):
        for peer in peers:
            if peer.name in found and number < peer.rounds(rounds):
                command = [peer.python(), "-m", module, peer.name]
                environment = {**os.environ, **peer.environment}
                output = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                if output.returncode:
                    print(f"FAILED: {peer.name}: {(output.stderr.splitlines() or [''])[-1]}")
                    del found[peer.name]
                    continue
                found[peer.name].append(float(output.stdout.split()[-1]))
    return found


def show(title: str, unit: str, found: dict[str, list[float]], base: str) -> None:
    """Print medians, spread, and the ratio of `base` to each peer: the median over rounds, with its range."""
    print(f"\n{title}")
    print(f"{'':18}{'median ' + unit:>14}{'min':>10}{'max':>10}   {base} / peer (min to max)")
    for name, values in found.items():
        ratios = [own / other for own, other in zip(found.get(base, []), values, strict=False)] or [float("nan")]
        median = statistics.median(values)
        print(
            f"{name:18}{median:14.2f}{min(values):10.2f}{max(values):10.2f}   "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )
