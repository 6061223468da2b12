"""What the benchmarks count and say: work, limits, ratios, targets, failures, and the page of a saved run."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
cases = importlib.import_module("benchmarks.cases")
compare = importlib.import_module("benchmarks.compare")
limits = importlib.import_module("benchmarks.limits")
memory = importlib.import_module("benchmarks.memory")
sweeps = importlib.import_module("benchmarks.sweeps")
Peer = importlib.import_module("benchmarks.rounds").Peer

SMALL, ROW = cases.CASES["small"], cases.CASES["row"]


def found_of(**figures: list[float]) -> dict[str, Any]:
    records = {
        name.replace("_", "-"): [{"us": value, "losses": [2.0, 1.0]} for value in values]
        for name, values in figures.items()
    }
    for record in records.get("limit", []):
        record |= {"gflops": 350.0, "gbytes": 20.0, "products_us": 60.0}
    return {"peers": records, "missing": {"flax": ["flax"]}, "failed": {"sklearn": "ValueError: no"}}


def test_work_is_counted() -> None:
    weights = 784 * 128 + 128 * 128 + 128 * 10
    forward = 2 * 32 * weights
    # Forward and the weights' gradient for every layer, the inputs' gradient for all but the first.
    assert SMALL.flops() == 2 * forward + 2 * 32 * (weights - 784 * 128)
    assert SMALL.bytes() == 28 * (weights + 266) + 32 * (4 * 784 + 8)
    assert ROW.flops() == 2 * weights
    assert ROW.bytes() == 4 * (weights + 266) + 4 * (784 + 10)
    half = dataclasses.replace(ROW, dtype="bfloat16")
    assert half.bytes() == 2 * (weights + 266) + 4 * (784 + 10)


def test_cases_name_peers_that_there_are() -> None:
    known = importlib.import_module("benchmarks.peers").PEERS
    for case in cases.CASES.values():
        for name in case.peers:
            assert name in known
            if case.name != "million":
                assert known[name].train if case.steps else known[name].predict, name
        for target in case.targets:
            assert {*target.peers, target.own} <= set(case.peers), case.name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("steps", [0, 4])
def test_a_limit_is_the_longer_of_products_and_bytes(dtype: str, steps: int) -> None:
    case = cases.Case("c", "", (24, 16, 8), 4, (), dtype, steps=steps)
    one = limits.limit(case, seconds=1e-4)
    parts = case.flops() / one["gflops"] / 1e3, case.bytes() / one["gbytes"] / 1e3
    assert one["us"] == pytest.approx(max(parts))
    assert 0 < parts[0] <= one["products_us"] * (1 + 1e-9)  # all at the best rate is no slower than each at its own


def test_ratios_are_taken_within_rounds() -> None:
    found = found_of(fanin=[1.0, 20.0, 3.0], torch=[2.0, 40.0, 4.0], keras_jax=[4.0, 50.0, 5.0])
    spread = compare.ratio(found, "fanin", "torch")
    assert (spread.median, spread.least, spread.most) == (0.5, 0.5, 0.75)
    assert compare.best(found, ("keras-jax", "torch", "absent")) == "torch"
    assert compare.best(found, ("absent",)) is None


def test_targets_are_met_missed_or_not_measured() -> None:
    found = found_of(limit=[0.3], fanin=[1.0], torch=[2.0], keras_torch=[20.0], keras_jax=[4.0])
    said = {what: (value, met) for what, _, value, met in compare.verdicts(SMALL, found)}
    assert said["fanin / torch with fused Adam"] == ("0.500 (0.500 to 0.500)", "missed")  # asked: 0.4
    assert said["fanin / Keras's best backend"] == ("0.250 (0.250 to 0.250) [keras-jax]", "met")
    assert said["fanin / Keras on torch"][1] == "met"
    assert said["fanin / JAX's scan"] == ("-", "not measured")
    assert said["share of the limit"] == ("0.300 (0.300 to 0.300)", "met")


def test_a_peer_that_fails_or_is_not_installed_is_named_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(
        "import json, sys\n"
        "if sys.argv[2] == 'bad':\n"
        "    raise ValueError('no such thing')\n"
        "print('noise'); print(json.dumps({'us': 2.0, 'case': sys.argv[1]}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    peers = [Peer("good"), Peer("bad"), Peer("absent", ("a_package_that_is_not",))]
    found = compare.take_turns("program", peers, 2, "c")
    assert found == {
        "peers": {"good": [{"us": 2.0, "case": "c"}] * 2},
        "missing": {"absent": ["a_package_that_is_not"]},
        "failed": {"bad": "ValueError: no such thing"},
    }


def test_memory_counts_what_is_held_beyond_the_output() -> None:
    record = memory.predict("torch", 2000)
    assert record["us"] > 0
    assert record["bytes"] < 64e6  # activations of one chunk: 2000 * (784 + 256 + 10) * 4 bytes are 8 MB


def test_sweeps_vary_one_size() -> None:
    assert sweeps.at("width", 16).widths == (16, 16, 16, 10)
    assert sweeps.at("depth", 3).widths == (256, 256, 256, 256, 10)
    assert sweeps.at("batch", 4).batch == 4
    record = sweeps.point("torch", sweeps.at("width", 16))
    assert record["us"] > 0
    assert record["losses"][1] < record["losses"][0]


def test_the_page_of_a_saved_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = importlib.import_module("benchmarks.report")
    case = found_of(limit=[1.0, 1.0], fanin=[2.0, 4.0], torch=[4.0, 4.0])
    points = {
        axis: [{"us": 1.0 + place, "first": 0.1} for place in range(len(values))]
        for axis, values in sweeps.AXES.items()
    }
    points["depth"][-1] = {"us": None}
    results = {
        "machine": "a machine",
        "versions": "torch",
        "train": {"small": case},
        "predict": {"row": case},
        "compiling": {"peers": {"fanin": [{"first": 2.0, "imported": 0.25}]}, "missing": {}, "failed": {}},
        "memory": {"1000": {**case, "peers": {"fanin": [{"us": 1e6, "bytes": 2e6}]}}},
        "sweeps": {
            axis: {"peers": {"fanin": [one], "torch": [one]}, "missing": {}, "failed": {}}
            for axis, one in points.items()
        },
    }
    report.write(json.loads(json.dumps(results)), tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| fanin / torch with fused Adam | at most 0.4 | 0.750 (0.500 to 1.000) | missed |" in page
    assert "| torch | 4.0 | 4.0 | 4.0 | 0.750 (0.500 to 1.000) | 0.25 | 2.0000 -> 1.0000 |" in page
    assert "| fanin | 2.000 (2.000 to 2.000) | 0.250 (0.250 to 0.250) |" in page
    assert "| 1,000 | fanin | 1.000 (1.000 to 1.000) | 2.0 |" in page
    assert "| 300 | left out | left out | - |" in page
    assert "Failed: sklearn: `ValueError: no`." in page
    images = [line.split("(")[-1].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert len(images) == 5
    for image in images:
        ElementTree.parse(tmp_path / image)
