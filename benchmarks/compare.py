"""Peers taking turns on one case, each in a process of its own, and the table of what came out.

What a run found is plain data, which JSON holds as it is: {"peers": name -> a record for each round, "missing": name ->
packages, "failed": name -> the line of its error}.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import Case, Target
from benchmarks.clock import Record
from benchmarks.peers import PEERS, run
from benchmarks.rounds import Peer

Found = dict[str, Any]
ERROR = re.compile(r"[\w.]+(Error|Exception|Exit|Interrupt)\b")


def ask(peer: Peer, module: str, *arguments: str, stdin: str = "") -> Any:
    """What `python -m module arguments` prints last, from JSON; RuntimeError with the line of its error."""
    command = [peer.python(), "-m", module, *arguments]
    environment = {**os.environ, **peer.environment}
    done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines()
        named = [line for line in lines if ERROR.match(line)]
        raise RuntimeError((named or lines or [f"exit status {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(module: str, peers: Sequence[Peer], rounds: int, *arguments: str) -> Found:
    """`python -m module arguments peer` for each peer in turn, `rounds` times. A peer that fails once is out."""
    found: Found = {"peers": {}, "missing": {}, "failed": {}}
    for peer in peers:
        if missing := peer.missing():
            found["missing"][peer.name] = missing
        else:
            found["peers"][peer.name] = []
    for _ in range(rounds):
        for peer in peers:
            if peer.name in found["peers"]:
                try:
                    found["peers"][peer.name].append(ask(peer, module, *arguments, peer.name))
                except RuntimeError as error:
                    found["failed"][peer.name] = str(error)
                    del found["peers"][peer.name]
    return found


def compare(module: str, case: Case, rounds: int) -> Found:
    """The case's limit and peers."""
    return take_turns(module, [PEERS[name].peer for name in ("limit", *case.peers)], rounds, case.name)


# --- what the figures say -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """The median over the rounds, the least and the largest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.least:.3f} to {self.most:.3f})"


def figures(found: Found, name: str) -> list[float]:
    """Microseconds of each round."""
    return [record["us"] for record in found["peers"][name]]


def ratio(found: Found, own: str, other: str) -> Spread:
    """own / other, round by round."""
    return Spread.of([a / b for a, b in zip(figures(found, own), figures(found, other), strict=True)])


def best(found: Found, names: Sequence[str]) -> str | None:
    """The fastest of these that ran."""
    ran = [name for name in names if name in found["peers"]]
    return min(ran, key=lambda name: statistics.median(figures(found, name)), default=None)


def verdict(found: Found, target: Target) -> tuple[str, str]:
    """The ratio to the target's peer, and whether it is met: "met", "missed" or "not measured"."""
    other = best(found, target.peers)
    if other is None or target.own not in found["peers"]:
        return "-", "not measured"
    spread = ratio(found, target.own, other)
    name = f" [{other}]" if len(target.peers) > 1 else ""
    return f"{spread}{name}", "met" if spread.median <= target.at_most else "missed"


def share_verdict(found: Found, least: float) -> tuple[str, str]:
    """fanin's share of the limit, and whether it is at least that."""
    if not {"limit", "fanin"} <= set(found["peers"]):
        return "-", "not measured"
    spread = ratio(found, "limit", "fanin")
    return str(spread), "met" if spread.median >= least else "missed"


def verdicts(case: Case, found: Found) -> list[tuple[str, str, str, str]]:
    """(what, asked, found, whether it is met) for every target of the case."""
    rows = [
        (f"{target.own} / {target.title}", f"at most {target.at_most}", *verdict(found, target))
        for target in case.targets
    ]
    if case.share is not None:
        rows.append(("share of the limit", f"at least {case.share}", *share_verdict(found, case.share)))
    return rows


def losses(records: Sequence[Record]) -> str:
    """The mean loss of the first epoch and of the last, medians over the rounds."""
    if "losses" not in records[0]:
        return ""
    first, last = (statistics.median(record["losses"][place] for record in records) for place in (0, -1))
    return f"{first:.4f} -> {last:.4f}"


def table(found: Found) -> list[list[str]]:
    """One row for each peer: name, median, least and largest us, fanin / peer, share of the limit, losses."""
    rows = []
    for name, records in found["peers"].items():
        spread = Spread.of(figures(found, name))
        own = str(ratio(found, "fanin", name)) if "fanin" in found["peers"] else "-"
        share = f"{ratio(found, 'limit', name).median:.2f}" if "limit" in found["peers"] else "-"
        numbers = [f"{value:,.1f}" for value in (spread.median, spread.least, spread.most)]
        rows.append([name, *numbers, own, share, losses(records)])
    return rows


def work(case: Case, found: Found) -> str:
    """What the limit is made of, in words."""
    limits = found["peers"]["limit"]
    flops, moved, own = (
        statistics.median(record[key] for record in limits) for key in ("gflops", "gbytes", "products_us")
    )
    return (
        f"the longer of {case.flops() / 1e6:,.1f} MFLOP at {flops:,.0f} GFLOP/s and {case.bytes() / 1e6:,.2f} MB at "
        f"{moved:,.1f} GB/s (its products one by one, each at its own rate: {own:,.1f} us)"
    )


HEADS = ["", "median us", "min", "max", "fanin / peer", "share", "loss, first -> last epoch"]


def show(case: Case, found: Found) -> None:
    """Print the table of a case, its targets, and who was left out or failed."""
    print(f"\n{case.name}: {case.title}")
    for row in (HEADS, *table(found)):
        print(f"{row[0]:18}" + "".join(f"{cell:>14}" for cell in row[1:4]) + f"   {row[4]:26}{row[5]:>6}   {row[6]}")
    if "limit" in found["peers"]:
        print(f"limit: {work(case, found)}")
    for what, asked, value, met in verdicts(case, found):
        print(f"{what}: {value}, target {asked}: {met}")
    for name, packages in found["missing"].items():
        print(f"left out: {name} (not installed: {', '.join(packages)})")
    for name, line in found["failed"].items():
        print(f"FAILED: {name}: {line}")


def command_line(module: str, cases: Sequence[Case], arguments: Sequence[str]) -> None:
    """`python -m module`: all cases. With a case's name that one; with a peer's too, that peer's record as JSON."""
    by_name = {case.name: case for case in cases}
    if len(arguments) == 2:
        print(json.dumps(run(by_name[arguments[0]], arguments[1])))
        return
    if arguments and arguments[0] not in by_name:
        sys.exit(f"There is no case {arguments[0]!r}: {', '.join(by_name)}.")
    measure_all(module, [by_name[name] for name in arguments] or cases)


def measure_all(module: str, cases: Sequence[Case], rounds: int = 5) -> dict[str, Found]:
    """Measure and show each case; case -> what was found."""
    results = {}
    for case in cases:
        results[case.name] = compare(module, case, rounds)
        show(case, results[case.name])
    return results
