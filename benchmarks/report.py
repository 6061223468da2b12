"""`python -m benchmarks.report results.json FOLDER`: saved results as Markdown, and their plots as SVG.

Writes FOLDER/benchmarks.md, and FOLDER/images/ with a picture for each case and each sweep.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import plots, saved
from benchmarks.__main__ import PARTS, ROWS
from benchmarks.saved import Entry
from benchmarks.sections import Section, markdown, section, targets

HEADS = {
    "train": "Training", "predict": "Prediction", "lora": "Fine-tuning", "compiling": "Compiling", "memory": "Memory",
    "sweeps": "How the cost of a step grows", "tables": "Estimators", "imports": "Import and calls",
}  # fmt: skip
ORDER = (
    "train",
    "predict",
    "lora",
    "lora-memory",
    "compiling",
    "memory",
    "sweeps",
    "imports",
    "call",
    "chain",
    "tables",
)

METHOD = """\
`python -m benchmarks --rounds 3` measures everything, in about half an hour on two cores. To measure some parts, keep
what was found, and make this page:

```
python -m benchmarks train/small predict --rounds 3 --save results.json
python -m benchmarks.report results.json docs
```

Another run with the same file replaces the parts, or rows of a part, that it measures.

Each peer runs in a process of its own, in turn, with the same data, first weights and precision. A ratio is taken
within a round; shown are the median over the rounds, the least and the largest. Slow peers take part in a third of the
rounds. "faster" names who was faster in every round. The share is that of the machine's limit: the counted products at
the best rate that one of them reaches alone, or copying the bytes that have to move, whichever takes longer.

Others share the machine, and slow it down for minutes: where least and largest lie far apart, the median says little.
"""


def ordered(entries: dict[str, Entry]) -> list[str]:
    """The keys of the entries, in the order of the page."""
    parts = [*ORDER, *(part for part in PARTS if part not in ORDER)]
    known = [f"{part}/{row}" if row else part for part in parts for row in ROWS.get(part, ("",))]
    return [key for key in known if key in entries] + [key for key in entries if key not in known]


def where(entries: dict[str, Entry]) -> Iterator[str]:
    """The machine, the versions and the rounds; what was measured otherwise is said apart."""
    places: dict[tuple[str, str], list[str]] = {}
    for key in ordered(entries):
        places.setdefault((entries[key]["machine"], entries[key]["versions"]), []).append(key)
    for (machine, versions), keys in places.items():
        of = "" if len(places) == 1 else f" (of {', '.join(keys)})"
        yield f"Machine{of}: {machine}.\n"
        yield f"Versions: {versions}.\n"
    rounds: dict[str, list[str]] = {}
    for key in ordered(entries):
        rounds.setdefault(str(entries[key]["rounds"] or "each part's own number"), []).append(key)
    said = [f"{number} ({', '.join(keys)})" if len(rounds) > 1 else number for number, keys in rounds.items()]
    yield f"Rounds: {'; '.join(said)}.\n"


def summary(sections: Sequence[Section]) -> Iterator[str]:
    """All targets, and all rivals that are ahead."""
    asked = [row for one in sections for row in one.targets]
    ahead = [row for one in sections for row in one.ahead]
    if asked:
        count = {word: sum(row[-1] == word for row in asked) for word in ("met", "missed", "not measured")}
        yield "## Targets\n"
        yield f"{', '.join(f'{number} {word}' for word, number in count.items() if number)}.\n"
        yield from targets(asked, "case")
    if ahead:
        yield "## Where others are ahead\n"
        yield from markdown([("case", "who", "by the median"), *ahead], words=3)


def page(entries: dict[str, Entry], sections: Sequence[Section]) -> str:
    """The whole page."""
    lines = ["# Benchmarks\n", METHOD, *where(entries), *summary(sections)]
    for one in sections:
        head = HEADS.get(one.key.partition("/")[0])
        if head and f"## {head}\n" not in lines:
            lines.append(f"## {head}\n")
        lines += one.lines
    return "\n".join(lines).rstrip() + "\n"


def write(entries: dict[str, Entry], folder: Path) -> None:
    """The page and its pictures."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    sections = [section(key, entries[key]["found"]) for key in ordered(entries)]
    (folder / "benchmarks.md").write_text(page(entries, sections))
    for one in sections:
        for file, picture in one.pictures.items():
            plots.save(picture, images / file)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python -m benchmarks.report results.json FOLDER")
    results = Path(sys.argv[1])
    if not results.exists():
        sys.exit(f"There is no file {results}.")
    write(saved.read(results), Path(sys.argv[2]))
