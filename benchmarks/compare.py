"""Peers taking turns, each in a process of its own, and the table of what came out.

What a run found is plain data, which JSON holds as it is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import Case, Target
from benchmarks.figures import Compared, Found, table, verdicts, work
from benchmarks.peers import PEERS, run
from benchmarks.rounds import Peer

ERROR = re.compile(r"[\w.]+(Error|Exception|Exit|Interrupt)\b")
LONGEST = 600  # seconds that a peer may take for one record


def ask(peer: Peer, module: str, *arguments: str, stdin: str = "") -> Any:
    """What `python -m module arguments` prints last, from JSON; RuntimeError with the line of its error."""
    command = [peer.python(), "-m", module, *arguments]
    environment = {**os.environ, **peer.environment}
    try:
        done = subprocess.run(
            command, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=LONGEST
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"not done after {LONGEST} seconds") from error
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
    for number in range(rounds):
        for peer in peers:
            if peer.name in found["peers"] and number < peer.rounds(rounds):
                try:
                    found["peers"][peer.name].append(ask(peer, module, *arguments, peer.name))
                except RuntimeError as error:
                    found["failed"][peer.name] = str(error)
                    del found["peers"][peer.name]
    return found


# --- cases, which have a limit ------------------------------------------------------------------------------------


def compare(module: str, case: Case, rounds: int) -> Found:
    """The case's limit and peers."""
    return take_turns(module, [PEERS[name].peer for name in ("limit", *case.peers)], rounds, case.name)


def command_line(module: str, cases: Sequence[Case], arguments: Sequence[str]) -> None:
    """`python -m module`: all cases. With a case's name that one; with a peer's too, that peer's record as JSON."""
    by_name = {case.name: case for case in cases}
    if len(arguments) == 2:
        print(json.dumps(run(by_name[arguments[0]], arguments[1])))
        return
    if arguments and arguments[0] not in by_name:
        sys.exit(f"There is no case {arguments[0]!r}: {', '.join(by_name)}.")
    for name in arguments or by_name:
        measure_case(module, by_name[name])


def measure_case(module: str, case: Case, rounds: int = 5) -> Found:
    """Measure and show one case."""
    found = compare(module, case, rounds)
    show(case, found)
    if "limit" in found["peers"]:
        print(f"limit: {work(case, found)}")
    return found


# --- contests, which have none ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contest:
    """Peers at one thing that `python -m module peer` measures: it prints {"us": microseconds}."""

    title: str
    module: str
    peers: tuple[Peer, ...]
    targets: tuple[Target, ...] = ()
    own: str = "fanin"
    share: None = None

    def measure(self, rounds: int) -> Found:
        """Measure and show it."""
        found = take_turns(self.module, self.peers, rounds)
        show(self, found)
        return found

    def command_line(self, us: Callable[[str], float], arguments: Sequence[str], rounds: int) -> None:
        """`python -m module`: the table. With a peer's name its record as JSON, `us(peer)`."""
        if arguments:
            print(json.dumps({"us": us(arguments[0])}))
        else:
            self.measure(rounds)


def show(case: Compared, found: Found) -> None:
    """Print the table, the targets, and who was left out or failed."""
    print(f"\n{case.title}")
    rows = table(case, found)
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(
            zip(row, wide, strict=True)
        )).rstrip())  # fmt: skip
    for what, asked, value, met in verdicts(case, found):
        print(f"{what}: {value}, target {asked}: {met}")
    show_absent(found)


def show_absent(found: Found) -> None:
    """Print who was left out, and who failed."""
    for name, packages in found["missing"].items():
        print(f"left out: {name} (not installed: {', '.join(packages)})")
    for name, line in found["failed"].items():
        print(f"FAILED: {name}: {line}")
