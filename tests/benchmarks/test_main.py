"""`python -m benchmarks`: which parts run, and what is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as program
from benchmarks import cases, saved


def test_names_choose_parts_and_rows() -> None:
    assert list(program.chosen(["call", "train/large"])) == [("call", ""), ("train", "large")]
    assert list(program.chosen(["predict"])) == [("predict", case.name) for case in cases.PREDICT]
    every = list(program.chosen([]))
    assert {part for part, _ in every} == set(program.PARTS)
    assert len(every) == len(set(every))


@pytest.mark.parametrize("name", ["trian", "train/huge", "call/small", "/small", ""])
def test_a_part_that_is_not_there_is_named_with_those_that_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"no {name}, but: .*(small|compiling)"):
        list(program.chosen([name]))


def test_each_row_is_kept_as_soon_as_it_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def train(row: str, rounds: int = 5) -> dict[str, Any]:
        if row == "large":
            raise RuntimeError("stopped")
        return {"row": row, "rounds": rounds}

    monkeypatch.setattr(program, "versions", lambda: "torch 0")
    monkeypatch.setitem(program.PARTS, "train", train)
    path = tmp_path / "results.json"
    with pytest.raises(RuntimeError, match="stopped"):
        program.main(["train", "--rounds", "2", "--save", str(path)])
    kept = saved.read(path)
    assert list(kept) == ["train/small", "train/medium"]
    assert kept["train/small"]["found"] == {"row": "small", "rounds": 2}
    assert kept["train/small"]["versions"] == "torch 0"
    program.main(["train/small", "--save", str(path)])
    kept = saved.read(path)
    assert kept["train/small"]["found"] == {"row": "small", "rounds": 5}
    assert kept["train/medium"]["found"] == {"row": "medium", "rounds": 2}


def test_a_file_that_holds_something_else_is_told_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(program.PARTS, "call", lambda **_: pytest.fail("it ran"))
    path = tmp_path / "results.json"
    path.write_text("[]")
    with pytest.raises(SystemExit):
        program.main(["call", "--save", str(path)])
    assert "holds no results" in capsys.readouterr().err
