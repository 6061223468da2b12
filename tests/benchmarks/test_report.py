"""The page of saved results: every part, every loss, and the same pictures from the same figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as program
from benchmarks import cases, sweeps, tables

pytest.importorskip("matplotlib")
report = pytest.importorskip("benchmarks.report")


@pytest.fixture
def entries(found_of: Any) -> dict[str, Any]:
    """One entry for every part and row."""
    case = found_of(limit=[1.0, 1.0], fanin=[2.0, 4.0], torch=[4.0, 4.0], jax_scan=[1.5])
    call = found_of(fanin=[2.0], torch=[1.0])
    for found in (case, call):
        found["missing"] = {}
    points = {
        axis: [{"us": 1.0 + place, "first": 0.1} for place in range(len(values))]
        for axis, values in sweeps.AXES.items()
    }
    points["depth"][-1] = {"us": None}
    twice = {axis: [{**one, "us": one["us"] and one["us"] * 2} for one in values] for axis, values in points.items()}
    memory = {"peers": {"fanin": [{"us": 1e6, "bytes": 2e6}], "torch": [{"us": 2e6, "bytes": 3e6}]}}
    scores = {
        peer: {name: [[height, height + 0.2], [1.0, 2.0]] for name in (*tables.CLASSES, *tables.NUMBERS)}
        for peer, height in (("fanin", 0.5), ("linear", 0.6), ("boosting", 0.4))
    }
    found = {
        **{f"train/{one.name}": case for one in cases.TRAIN},
        **{f"predict/{one.name}": case for one in cases.PREDICT},
        "lora": {"fanin": [30.0], "peft": [20.0], "products": [10.0]},
        "lora-memory": {"peers": {"lora": [{"bytes": 1e8, "left": 5e7}], "full": [{"bytes": 4e8, "left": 1e8}]}},
        "compiling": {"peers": {"fanin": [{"first": 2.0, "imported": 0.25}], "torch": [{"first": 1, "imported": 0.1}]}},
        "memory": {"250": memory, "1000": memory},
        **{
            f"sweeps/{axis}": {"peers": {"fanin": [one], "torch": [twice[axis] if axis == "width" else one]}}
            for axis, one in points.items()
        },
        "imports": call, "call": call, "chain": {"peers": {}},
        "tables": {"peers": scores},
        "future": {"peers": {"a": [{"us": 1.0, "name": "b"}]}},
    }  # fmt: skip
    for one in (memory, *found.values()):
        if "peers" in one:
            one.setdefault("missing", {})
            one.setdefault("failed", {})
    where = {"rounds": 2, "seconds": 1.0, "machine": "a machine", "versions": "torch 0"}
    read: dict[str, Any] = json.loads(json.dumps({key: {"found": one, **where} for key, one in found.items()}))
    return read


def test_the_page_has_every_part(entries: dict[str, Any], tmp_path: Path) -> None:
    every = {f"{part}/{row}" if row else part for part, row in program.chosen([])}
    assert every <= entries.keys() | {"lora-memory"}
    report.write(entries, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    for line in (
        "Machine: a machine.",
        "Rounds: 2.",
        "| fanin / torch with fused Adam | at most 0.4 | 0.750 (0.500 to 1.000) | **missed** |",
        "| torch | 4.00 | 4.00 | 4.00 | 2 | 0.750 (0.500 to 1.000) | either | 0.25 | 2.0000 -> 1.0000 |",
        "| jax-scan | 1.50 | 1.50 | 1.50 | 1 | 1.333 (1.333 to 1.333) | **jax-scan** | 0.67 | 2.0000 -> 1.0000 |",
        "| fanin | 2.000 (2.000 to 2.000) | 0.250 (0.250 to 0.250) |  |",
        "| 1,000 | torch | 2.000 (2.000 to 2.000) | 3.0 | 0.500 (0.500 to 0.500) |",
        "| 300 | left out | left out | - |",
        "| lora / full | at most 0.5 | 0.250 (0.250 to 0.250) | met |",
        "| a | 1.0 |",
        "Failed: sklearn: `ValueError: no`.",
    ):
        assert line in page.splitlines(), line
    images = re.findall(r"\]\((images/.*\.svg)\)", page)
    assert len(images) == len(set(images)) == 7 + 1 + 3 + 2  # cases, LoRA, sweeps, imports and calls
    assert {f"images/{one.name}" for one in (tmp_path / "images").iterdir()} == set(images)


def test_losses_are_told_at_the_top(entries: dict[str, Any], tmp_path: Path) -> None:
    report.write(entries, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    top = page[page.index("## Where others are ahead") : page.index("## Training")]
    for line in (
        "fit 784-128-128-10, batch 32 | jax-scan | fanin / jax-scan: 1.333 (1.333 to 1.333)",
        'one call of Dense(128, "relu") on one row of 784, gradients on | torch | fanin / torch: 2.000 (2.000 to 2.000)',  # noqa: E501
        "a LoRA step: three Dense(2048, relu), rank 8, batch 256, Adam | peft | fanin / peft: 1.500 (1.500 to 1.500)",
        "the first step of fit 784-128-128-10, batch 32, imports done | torch | fanin / torch: 2.500 (2.500 to 2.500)",
        "score on iris | linear | by 0.100",
    ):
        assert f"| {line} |" in top.splitlines(), line
    assert "products" not in top
    assert "a training step" not in top
    missed = sum(line.endswith("| **missed** |") for line in page[: page.index("## Where")].splitlines())
    assert missed
    assert f"{missed} missed" in page


def test_what_was_measured_elsewhere_is_said(entries: dict[str, Any]) -> None:
    entries["call"]["machine"], entries["lora"]["rounds"] = "another", None
    said = "".join(report.where(entries))
    assert "Machine (of call): another." in said
    assert "each part's own number (lora)" in said


def test_the_same_figures_give_the_same_small_pictures_with_text(entries: dict[str, Any], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        report.write(entries, tmp_path / folder)
    for image in (tmp_path / "one" / "images").iterdir():
        svg = image.read_bytes()
        assert svg == (tmp_path / "two" / "images" / image.name).read_bytes()
        assert len(svg) < 60_000
        texts = [one.text for one in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
        assert any(text and "seconds" in text for text in texts)  # micro- and milliseconds
        assert "fanin" in texts
        assert b"dc:date" not in svg
