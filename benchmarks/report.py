"""`python -m benchmarks.report results.json FOLDER`: the tables of a saved run as Markdown, and its plots as SVG.

Writes FOLDER/benchmarks.md, and FOLDER/images/ with one picture for each case and each sweep.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import compare, plots, sweeps
from benchmarks.cases import CASES, MILLION
from benchmarks.compare import Found, Spread, figures, share_verdict


def rows(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table, its first line the heads."""
    head, *body = lines
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for line in body:
        yield f"| {' | '.join(line)} |"
    yield ""


def absent(found: Found) -> Iterator[str]:
    """Who was left out, and who failed."""
    for name, packages in found["missing"].items():
        yield f"Left out: {name} (not installed: {', '.join(packages)}).\n"
    for name, line in found["failed"].items():
        yield f"Failed: {name}: `{line}`.\n"


def of_case(name: str, found: Found) -> Iterator[str]:
    """A case: targets, table, picture."""
    case = CASES[name]
    yield f"### {case.title}\n"
    if asked := compare.verdicts(case, found):
        yield from rows([("", "target", "median (least to most)", ""), *asked])
    yield from rows([compare.HEADS, *compare.table(found)])
    if "limit" in found["peers"]:
        yield f"Limit: {compare.work(case, found)}.\n"
    yield from absent(found)
    if found["peers"]:
        yield f"![{case.title}: microseconds of each peer](images/bench-{name}.svg)\n"


def of_compiling(found: Found) -> Iterator[str]:
    """Seconds to the first result."""
    lines = [("", "seconds to the first result", "with its imports done before")]
    for name, records in found["peers"].items():
        spreads = [str(Spread.of([record[key] for record in records])) for key in ("first", "imported")]
        lines.append((name, *spreads))
    yield "## Tracing and compiling\n"
    yield from rows(lines)
    yield from absent(found)


def of_memory(results: dict[str, Found]) -> Iterator[str]:
    """Seconds and memory, by the number of rows."""
    lines = [("rows", "", "seconds", "MB beyond rows and output")]
    for number, found in results.items():
        for name, records in found["peers"].items():
            seconds = Spread.of([value / 1e6 for value in figures(found, name)])
            more = Spread.of([record["bytes"] / 1e6 for record in records])
            lines.append((f"{int(number):,}", name, str(seconds), f"{more.median:,.1f}"))
    whole = results[max(results, key=int)]
    assert MILLION.share is not None
    value, met = share_verdict(whole, MILLION.share)
    yield f"## Memory: {MILLION.title}\n"
    yield from rows(lines)
    yield f"Share of the limit: {value}, target at least {MILLION.share}: {met}.\n"
    yield from absent(whole)


def of_sweep(axis: str, found: Found) -> Iterator[str]:
    """One line for each value of the axis."""
    names = list(found["peers"])
    lines: list[Sequence[str]] = [(axis, *(f"{name}, us a step" for name in names), "fanin / torch")]
    for place, value in enumerate(sweeps.AXES[axis]):
        middles = {name: sweeps.middle(found["peers"][name], place) for name in names}
        own, other = middles.get("fanin"), middles.get("torch")
        shown = ["left out" if middle is None else f"{middle:,.1f}" for middle in middles.values()]
        lines.append((f"{value:,}", *shown, f"{own / other:.3f}" if own and other else "-"))
    yield f"### {axis.capitalize()}\n"
    yield from rows(lines)
    yield from absent(found)
    if found["peers"]:
        yield f"![microseconds of a step over {axis}](images/bench-sweep-{axis}.svg)\n"


def markdown(results: dict[str, Any]) -> str:
    """The whole page."""
    lines = [
        "# Benchmarks\n",
        f"{results['machine']}; {results['versions']}. Each peer runs in a process of its own, in turn. A ratio is "
        "taken within a round; shown are the median over the rounds, the least and the most. The share is that of "
        "the machine's limit: the counted products at the best rate that one of them reaches alone, or copying the "
        "bytes that have to move, whichever takes longer.\n",
    ]
    for part in ("train", "predict"):
        if part in results:
            lines.append(f"## {'Training' if part == 'train' else 'Prediction'}\n")
            for name, found in results[part].items():
                lines += of_case(name, found)
    if "compiling" in results:
        lines += of_compiling(results["compiling"])
    if "memory" in results:
        lines += of_memory(results["memory"])
    if "sweeps" in results:
        lines.append("## How the cost of a step grows\n")
        for axis, found in results["sweeps"].items():
            lines += of_sweep(axis, found)
    return "\n".join(lines).rstrip() + "\n"


def write(results: dict[str, Any], folder: Path) -> None:
    """The page and its pictures."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.md").write_text(markdown(results))
    for part in ("train", "predict"):
        for name, found in results.get(part, {}).items():
            if found["peers"]:
                plots.bars(CASES[name].title, found, images / f"bench-{name}.svg")
    for axis, found in results.get("sweeps", {}).items():
        if found["peers"]:
            plots.lines(axis, found, images / f"bench-sweep-{axis}.svg")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python -m benchmarks.report results.json FOLDER")
    write(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
