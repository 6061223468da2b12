"""The points of a sweep: one size varies, and what takes too long is left out."""

from __future__ import annotations

import pytest

from benchmarks import sweeps


def test_sweeps_vary_one_size() -> None:
    assert sweeps.at("width", 16).widths == (16, 16, 16, 10)
    assert sweeps.at("depth", 3).widths == (256, 256, 256, 256, 10)
    assert sweeps.at("batch", 4).batch == 4
    record = sweeps.point("torch", sweeps.at("width", 16))
    assert record["us"] > 0
    assert record["losses"][1] < record["losses"][0]


def test_values_beyond_one_that_takes_too_long_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "point", lambda name, case: {"us": None if case.batch == 16 else 1.0, "first": 0.1})
    monkeypatch.setitem(sweeps.AXES, "batch", (1, 4, 16, 64))
    own = sweeps.sweep("batch", "fanin")
    assert [one["us"] for one in own] == [1.0, 1.0, None, None]
    found = {"peers": {"fanin": [own, own], "torch": [[{"us": 4.0}] * 4, [{"us": 2.0}] * 4]}}
    spread = sweeps.ratio(found, 1)
    assert spread is not None
    assert (spread.median, spread.least, spread.most) == (0.375, 0.25, 0.5)
    assert sweeps.ratio(found, 2) is None
