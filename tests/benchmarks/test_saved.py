"""A file of results grows, and is never half written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import saved


def entry(found: Any) -> dict[str, Any]:
    return {"found": found, "rounds": 1, "seconds": 2.0, "machine": "m", "versions": "v"}


def test_another_run_replaces_its_own_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert saved.read(path) == {}
    for key, found in (("train/small", 1), ("train/large", 2), ("call", 3), ("train/small", 4)):
        saved.put(path, key, entry(found))
    assert {key: one["found"] for key, one in saved.read(path).items()} == {
        "train/small": 4,
        "train/large": 2,
        "call": 3,
    }
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ["{", "[]", '"x"', '{"train": {"small": {}}}', '{"machine": "m"}'])
def test_a_file_of_anything_else_is_refused_and_kept(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json"):
        saved.put(path, "call", entry(1))
    assert path.read_text() == text


def test_what_json_cannot_hold_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    saved.put(path, "call", entry(1))
    with pytest.raises(TypeError):
        saved.put(path, "chain", entry(object()))
    assert list(json.loads(path.read_text())) == ["call"]
