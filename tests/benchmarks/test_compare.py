"""Peers take turns in processes of their own; one that fails stops nobody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.rounds import Peer, measure, show

from benchmarks import compare

PROGRAM = """
import json, sys, time
if sys.argv[-1] == "bad":
    raise ValueError("no such thing")
if sys.argv[-1] == "stuck":
    time.sleep(60)
print("noise")
print(json.dumps({"us": 2.0, "asked": sys.argv[1:]}) if "plain" not in sys.argv[-1] else 3.5)
"""
PEERS = [Peer("good"), Peer("bad"), Peer("absent", ("a_package_that_is_not",)), Peer("slow", slow=True)]


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_peer_that_fails_or_is_not_installed_is_named_and_the_others_go_on() -> None:
    found = compare.take_turns("program", PEERS, 3, "c")
    assert found == {
        "peers": {
            "good": [{"us": 2.0, "asked": ["c", "good"]}] * 3,
            "slow": [{"us": 2.0, "asked": ["c", "slow"]}],  # in a third of the rounds
        },
        "missing": {"absent": ["a_package_that_is_not"]},
        "failed": {"bad": "ValueError: no such thing"},
    }


def test_slow_peers_take_part_in_a_third_of_the_rounds_and_in_one_at_least() -> None:
    assert [Peer("p", slow=True).rounds(rounds) for rounds in (1, 2, 3, 5, 6)] == [1, 1, 1, 1, 2]
    assert Peer("p").rounds(5) == 5


def test_a_peer_that_does_not_end_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "LONGEST", 0.2)
    found = compare.take_turns("program", [Peer("stuck")], 1)
    assert found["failed"] == {"stuck": "not done after 0.2 seconds"}


def test_a_contest_shows_its_table_and_its_targets(found_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    contest = compare.Contest("a call", "program", (), (compare.Target(0.5, "torch", ("torch",)),))
    compare.show(contest, found_of(fanin=[3.0], torch=[4.0]))
    shown = capsys.readouterr().out
    assert "a call" in shown
    assert "fanin / torch: 0.750 (0.750 to 0.750), target at most 0.5: missed" in shown
    assert "left out: flax (not installed: flax)" in shown
    assert "FAILED: sklearn: ValueError: no" in shown
    contest.command_line(lambda peer: 7.0, ["fanin"], 3)
    assert json.loads(capsys.readouterr().out) == {"us": 7.0}


def test_plain_numbers_in_turn(capsys: pytest.CaptureFixture[str]) -> None:
    found = measure("program", [Peer("plain"), Peer("bad")], 2)
    assert found == {"plain": [3.5, 3.5]}
    show("plain", "ms", found, "bad")  # the base has failed
    assert "FAILED: bad: ValueError: no such thing" in capsys.readouterr().out
