"""The least work of a case is counted, and its peers are there."""

from __future__ import annotations

import dataclasses

from benchmarks.peers import PEERS

from benchmarks import cases

SMALL, ROW = cases.CASES["small"], cases.CASES["row"]


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
    for case in cases.CASES.values():
        for name in case.peers:
            assert name in PEERS
            if case.name != "million":
                assert PEERS[name].train if case.steps else PEERS[name].predict, name
        for target in case.targets:
            assert {*target.peers, target.own} <= set(case.peers), case.name
