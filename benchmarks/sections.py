"""The sections of a report, one for each part: tables in Markdown, targets, rivals that are ahead, and pictures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from benchmarks import call, chain, compiling, figures, imports, lora, lora_memory, memory, plots, sweeps, tables
from benchmarks.cases import CASES, MILLION, Case, Target
from benchmarks.compare import Contest
from benchmarks.figures import Compared, Found, Spread


@dataclass
class Section:
    """What one entry of the saved results has to say; `key` names its pictures."""

    key: str
    lines: list[str] = field(default_factory=list)
    targets: list[tuple[str, str, str, str, str]] = field(default_factory=list)  # where, what, asked, found, met
    ahead: list[tuple[str, str, str]] = field(default_factory=list)  # where, who, by how much
    pictures: dict[str, Figure] = field(default_factory=dict)  # file -> picture

    def judge(self, where: str, case: Compared, found: Found) -> None:
        """Enter targets, and the rivals that are faster."""
        verdicts = figures.verdicts(case, found)
        self.targets += [(where, *row) for row in verdicts]
        self.ahead += [(where, name, f"{case.own} / {name}: {spread}") for name, spread in _ahead(case, found)]
        if verdicts:
            self.lines += targets(verdicts)

    def draw(self, alternative: str, picture: Figure) -> None:
        """Add a picture."""
        file = f"bench-{self.key.replace('/', '-')}.svg"
        self.pictures[file] = picture
        self.lines.append(f"![{alternative}](images/{file})\n")


def markdown(rows: Sequence[Sequence[str]], words: int = 1) -> Iterator[str]:
    """A table, its first line the heads; the first columns hold words, the others numbers, which go to the right."""
    head, *body = rows
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * words}{'---:|' * (len(head) - words)}"
    for row in body:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"
    yield ""


def targets(rows: Sequence[Sequence[str]], *heads: str) -> Iterator[str]:
    """A table of targets, those that are missed marked."""
    marked = [[f"**{cell}**" if cell == "missed" else cell for cell in row] for row in rows]
    return markdown([(*heads, "what", "target", "found", ""), *marked], words=len(heads) + 4)


def _ahead(case: Compared, found: Found) -> list[tuple[str, Spread]]:
    return figures.rivals_ahead(case, found)


def _absent(found: Found) -> Iterator[str]:
    for name, packages in found["missing"].items():
        yield f"Left out: {name} (not installed: {', '.join(packages)}).\n"
    for name, line in found["failed"].items():
        yield f"Failed: {name}: `{line}`.\n"


def _compared(key: str, case: Compared, found: Found) -> Section:
    """A case or a contest: targets, table, limit, picture."""
    section = Section(key, [f"### {case.title[0].upper()}{case.title[1:]}\n"])
    section.judge(case.title, case, found)
    heads, *rows = figures.table(case, found)
    place = heads.index("faster") if "faster" in heads else -1
    for row in rows:
        if place >= 0 and row[place] == row[0]:
            row[place] = f"**{row[0]}**"
    section.lines += markdown([heads, *rows])
    if isinstance(case, Case) and "limit" in found["peers"]:
        section.lines.append(f"Limit: {figures.work(case, found)}.\n")
    section.lines += _absent(found)
    if found["peers"]:
        section.draw(f"{case.title}: time of each peer", plots.dots(case, found))
    return section


def _lora(key: str, found: Any) -> Section:
    """Milliseconds become records; only pairs that belong together are compared."""
    if "peers" not in found:
        records = {name: [{"us": value * 1e3} for value in values] for name, values in found.items()}
        found = {"peers": records, "missing": {}, "failed": {}}
    title = "a LoRA step: three Dense(2048, relu), rank 8, batch 256, Adam"
    targets = tuple(Target(most, other, (other,), own) for own, other, most in lora.TARGETS)
    section = _compared(key, Contest(title, "benchmarks.lora", (), targets, own=""), found)
    for own, other, _ in lora.TARGETS:
        if other.startswith(("peft", "keras")) and {own, other} <= set(found["peers"]):
            spread = figures.ratio(found, own, other)
            if spread.median > 1:
                section.ahead.append((title, other, f"{own} / {other}: {spread}"))
    return section


def _lora_memory(key: str, found: Found) -> Section:
    """Megabytes at the peak, and what is left of them."""
    title = "the memory of a LoRA fit: three Dense(2048, relu), rank 8, batch 256, Adam"
    row = ("lora / full", f"at most {lora_memory.TARGET}", *lora_memory.verdict(found))
    section = Section(key, [f"### {title[0].upper()}{title[1:]}\n"], [(title, *row)])
    section.lines += targets([row])
    lines = [("", "MB above the import, at the peak", "left after")]
    for name in found["peers"]:
        values = [lora_memory.megabytes(found, name, what) for what in ("bytes", "left")]
        peak, left = (figures.number(statistics.median(one)) for one in values)
        lines.append((name, f"{peak} ({figures.number(min(values[0]))} to {figures.number(max(values[0]))})", left))
    section.lines += markdown(lines)
    section.lines += _absent(found)
    return section


def _tables(key: str, found: Found) -> Section:
    """Scores on tables: no times, so no ratios."""
    section = Section(key, ["### Scores on the tables of scikit-learn\n", f"{tables.TITLE}.\n"])
    section.lines += markdown(tables.table(found))
    section.lines += _absent(found)
    section.ahead = [(f"score on {table}", peer, f"by {gap:.3f}") for table, peer, gap in tables.rivals_ahead(found)]
    return section


def _compiling(key: str, found: Found) -> Section:
    """Seconds to the first result."""
    title = "the first step of fit 784-128-128-10, batch 32"
    value, met = compiling.verdict(found)
    row = ("fanin, imports done", f"at most {compiling.AT_MOST} s", value, met)
    section = Section(key, [f"### {title[0].upper()}{title[1:]}: tracing and compiling\n"], [(title, *row)])
    lines = [("", "seconds to the first result", "with its imports done before", "fanin / peer, imports done")]
    for name, records in found["peers"].items():
        spreads = [str(Spread.of([record[key] for record in records])) for key in ("first", "imported")]
        ratio = compiling.ratio(found, name) if name != "fanin" else None
        if ratio and ratio.median > 1:
            section.ahead.append((f"{title}, imports done", name, f"fanin / {name}: {ratio}"))
        lines.append((name, *spreads, str(ratio or "")))
    section.lines += targets([row])
    section.lines += markdown(lines)
    section.lines += _absent(found)
    return section


def _memory(key: str, results: dict[str, Found]) -> Section:
    """Seconds and memory, by the number of rows."""
    section = Section(key, [f"### {MILLION.title[0].upper()}{MILLION.title[1:]}\n"])
    row = memory.verdict(results)
    section.targets.append((MILLION.title, *row))
    section.lines += targets([row])
    heads, *rows = memory.table(results)
    section.lines += markdown([heads, *rows])
    section.lines.append(
        "More is the memory beyond the rows and the output, at the peak: the same for any number of rows.\n"
    )
    for number, found in results.items():
        section.lines += _absent(found)
        for name, spread in _ahead(MILLION, found):
            section.ahead.append((f"predict of {int(number):,} rows", name, f"fanin / {name}: {spread}"))
    return section


def _sweep(key: str, found: Found) -> Section:
    """One line for each value of the axis."""
    axis = key.partition("/")[2]
    section = Section(key, [f"### A training step over {axis}\n"])
    names = list(found["peers"])
    lines: list[Sequence[str]] = [(axis, *(f"{name}, us" for name in names), "fanin / torch")]
    for place, value in enumerate(sweeps.AXES[axis]):
        middles = [sweeps.middle(found["peers"][name], place) for name in names]
        shown = ["left out" if middle is None else figures.number(middle) for middle in middles]
        ratio = sweeps.ratio(found, place)
        if ratio and ratio.median > 1:
            section.ahead.append((f"a training step, {axis} {value:,}", "torch", f"fanin / torch: {ratio}"))
        lines.append(
            (f"{value:,}", *shown, "-" if ratio is None else f"**{ratio}**" if ratio.median > 1 else f"{ratio}")
        )
    section.lines += markdown(lines)
    if any("left out" in line for line in lines):
        section.lines.append(f"Left out: a step takes more than {sweeps.LONGEST:.0f} seconds.\n")
    section.lines += _absent(found)
    if found["peers"]:
        section.draw(f"time of a training step over {axis}, fanin and torch", plots.lines(axis, found))
    return section


def _other(key: str, found: Any) -> Section:
    """A part without a form of its own here: the median of every number that its peers gave."""
    section = Section(key, [f"### {key}\n"])
    columns: list[str] = []
    records = found.get("peers", {}) if isinstance(found, dict) else {}
    for rounds in records.values():
        columns += [name for name in _numbers(rounds[0]) if name not in columns]
    lines = [["", *columns]]
    for name, rounds in records.items():
        numbers: list[list[Any]] = [[_numbers(one).get(column) for one in rounds] for column in columns]
        lines.append([name, *("-" if None in column else f"{statistics.median(column):,.1f}" for column in numbers)])
    section.lines += markdown(lines)
    return section


def _numbers(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        return {"value": record} if isinstance(record, int | float) else {}
    return {name: value for name, value in record.items() if isinstance(value, int | float)}


FORMS: dict[str, Callable[[str, Any], Section]] = {
    "imports": lambda key, found: _compared(key, imports.CONTEST, found),
    "call": lambda key, found: _compared(key, call.CONTEST, found),
    "chain": lambda key, found: _compared(key, chain.CONTEST, found),
    "tables": _tables,
    "train": lambda key, found: _compared(key, CASES[key.partition("/")[2]], found),
    "predict": lambda key, found: _compared(key, CASES[key.partition("/")[2]], found),
    "lora": _lora,
    "lora-memory": _lora_memory,
    "compiling": _compiling,
    "memory": _memory,
    "sweeps": _sweep,
}


def section(key: str, found: Any) -> Section:
    """The section of one entry."""
    return FORMS.get(key.partition("/")[0], _other)(key, found)
