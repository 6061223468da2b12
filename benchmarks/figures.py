"""What the figures of a comparison say: ratios, targets, shares of the limit, and the rows of its table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.cases import Case, Target
from benchmarks.clock import Record

# {"peers": name -> a record for each round, "missing": name -> packages, "failed": name -> the line of its error}
Found = dict[str, Any]


class Compared(Protocol):
    """What a table needs to know of a case or a contest."""

    @property
    def title(self) -> str: ...
    @property
    def targets(self) -> tuple[Target, ...]: ...
    @property
    def share(self) -> float | None: ...
    @property
    def own(self) -> str: ...


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
    """own / other, round by round; a slow peer takes part in the first rounds only."""
    return Spread.of([a / b for a, b in zip(figures(found, own), figures(found, other), strict=False)])


def best(found: Found, names: Sequence[str]) -> str | None:
    """The fastest of these that ran."""
    ran = [name for name in names if name in found["peers"]]
    return min(ran, key=lambda name: statistics.median(figures(found, name)), default=None)


def scale(found: Found) -> tuple[str, float]:
    """The unit of a table, and its microseconds: the largest one that leaves every peer at least 1."""
    least = min((statistics.median(figures(found, name)) for name in found["peers"]), default=0)
    units = {"s": 1e6, "ms": 1e3, "us": 1.0}
    name = next((name for name, us in units.items() if least >= us), "us")
    return name, units[name]


def number(value: float) -> str:
    """Three digits at least, and no exponent."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


# --- targets ------------------------------------------------------------------------------------------------------


def verdict(found: Found, target: Target) -> tuple[str, str]:
    """The ratio to the target's peer, and whether it is met: "met", "missed" or "not measured"."""
    other = best(found, target.peers)
    if other is None or target.own not in found["peers"]:
        return "-", "not measured"
    spread = ratio(found, target.own, other)
    name = f" [{other}]" if len(target.peers) > 1 else ""
    return f"{spread}{name}", "met" if spread.median <= target.at_most else "missed"


def share_verdict(found: Found, least: float, own: str = "fanin") -> tuple[str, str]:
    """The share of the limit that `own` reaches, and whether it is at least that."""
    if not {"limit", own} <= set(found["peers"]):
        return "-", "not measured"
    spread = ratio(found, "limit", own)
    return str(spread), "met" if spread.median >= least else "missed"


def verdicts(case: Compared, found: Found) -> list[tuple[str, str, str, str]]:
    """(what, asked, found, whether it is met) for every target of the case."""
    rows = [
        (f"{target.own} / {target.title}", f"at most {target.at_most}", *verdict(found, target))
        for target in case.targets
    ]
    if case.share is not None:
        rows.append(("share of the limit", f"at least {case.share}", *share_verdict(found, case.share, case.own)))
    return rows


# --- tables -------------------------------------------------------------------------------------------------------


def is_rival(case: Compared, name: str) -> bool:
    """Whether it is another library."""
    return name not in ("limit", case.own) and not name.startswith("fanin")


def faster(case: Compared, found: Found, name: str) -> str:
    """Which of the two was faster in every round: "fanin", the rival's name, or "either"; "" for no rival."""
    if not is_rival(case, name) or case.own not in found["peers"]:
        return ""
    spread = ratio(found, case.own, name)
    if spread.least > 1:
        return name
    return "fanin" if spread.most < 1 else "either"


def rivals_ahead(case: Compared, found: Found) -> list[tuple[str, Spread]]:
    """The rivals whose median ratio says that they are faster, the fastest first."""
    names = [name for name in found["peers"] if faster(case, found, name)]
    ratios = [(name, ratio(found, case.own, name)) for name in names]
    return sorted((pair for pair in ratios if pair[1].median > 1), key=lambda pair: -pair[1].median)


def losses(records: Sequence[Record]) -> str:
    """The mean loss of the first epoch and of the last, medians over the rounds."""
    if "losses" not in records[0]:
        return ""
    first, last = (statistics.median(record["losses"][place] for record in records) for place in (0, -1))
    return f"{first:.4f} -> {last:.4f}"


def table(case: Compared, found: Found) -> list[list[str]]:
    """Heads, and a row for each peer; columns that would be empty are left out."""
    unit, us = scale(found)
    rows = [["", f"median {unit}", "least", "most", "rounds", f"{case.own} / peer", "faster", "share", "loss"]]
    for name, records in found["peers"].items():
        spread = Spread.of(figures(found, name))
        compared = case.own in found["peers"] and name not in ("limit", case.own)
        rows.append([
            name,
            *(number(value / us) for value in (spread.median, spread.least, spread.most)),
            str(len(records)),
            str(ratio(found, case.own, name)) if compared else "",
            faster(case, found, name),
            f"{ratio(found, 'limit', name).median:.2f}" if "limit" in found["peers"] else "",
            losses(records),
        ])  # fmt: skip
    shown = [place for place in range(len(rows[0])) if not place or any(row[place] for row in rows[1:])]
    return [[row[place] for place in shown] for row in rows]


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
