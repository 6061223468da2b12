"""A file of results, which grows run by run: a part that is measured again replaces its own rows and no others.

It holds "part" or "part/row" -> an entry: what was found, in how many rounds and seconds, on which machine, with which
versions.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Entry = dict[str, Any]  # "found", "rounds" (None: the part's own number), "seconds", "machine", "versions"
KEYS = {"found", "rounds", "seconds", "machine", "versions"}


def read(path: Path) -> dict[str, Entry]:
    """The entries; none if there is no file. ValueError for a file that holds anything else."""
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
        raise ValueError(f"{path} holds no results of this version of the benchmarks.")
    return entries


def _is_entry(one: Any) -> bool:
    return isinstance(one, dict) and one.keys() >= KEYS


def put(path: Path, key: str, entry: Entry) -> None:
    """Add or replace one entry. The file is whole at every moment."""
    entries = read(path) | {key: entry}
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(entries, indent=1) + "\n")
    beside.replace(path)


def rows(entries: dict[str, Entry], part: str) -> dict[str, Any]:
    """row -> what was found, of a part that has rows."""
    return {key.partition("/")[2]: one["found"] for key, one in entries.items() if key.startswith(f"{part}/")}
