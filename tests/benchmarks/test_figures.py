"""Ratios, targets, shares and tables say what the figures of a run say, losses included."""

from __future__ import annotations

from typing import Any

from benchmarks.compare import Contest

from benchmarks import cases, figures

SMALL = cases.CASES["small"]


def test_ratios_are_taken_within_rounds(found_of: Any) -> None:
    found = found_of(fanin=[1.0, 20.0, 3.0], torch=[2.0, 40.0, 4.0], keras_jax=[4.0, 50.0, 5.0])
    spread = figures.ratio(found, "fanin", "torch")
    assert (spread.median, spread.least, spread.most) == (0.5, 0.5, 0.75)
    assert figures.best(found, ("keras-jax", "torch", "absent")) == "torch"
    assert figures.best(found, ("absent",)) is None


def test_a_peer_of_fewer_rounds_is_compared_in_those_it_took_part_in(found_of: Any) -> None:
    found = found_of(fanin=[1.0, 20.0, 30.0], torch=[4.0])
    assert figures.ratio(found, "fanin", "torch") == figures.Spread(0.25, 0.25, 0.25)
    assert figures.ratio(found, "torch", "fanin") == figures.Spread(4.0, 4.0, 4.0)


def test_targets_are_met_missed_or_not_measured(found_of: Any) -> None:
    found = found_of(limit=[0.3], fanin=[1.0], torch=[2.0], keras_torch=[20.0], keras_jax=[4.0])
    said = {what: (value, met) for what, _, value, met in figures.verdicts(SMALL, found)}
    assert said["fanin / torch with fused Adam"] == ("0.500 (0.500 to 0.500)", "missed")  # asked: 0.4
    assert said["fanin / Keras's best backend"] == ("0.250 (0.250 to 0.250) [keras-jax]", "met")
    assert said["fanin / Keras on torch"][1] == "met"
    assert said["fanin / JAX's scan"] == ("-", "not measured")
    assert said["share of the limit"] == ("0.300 (0.300 to 0.300)", "met")


def test_the_faster_one_is_named_only_if_it_always_was(found_of: Any) -> None:
    found = found_of(limit=[1, 1], fanin=[10, 12], jax_scan=[9, 8], torch=[11, 9], flax=[20, 20], fanin_call=[1, 1])
    said = {name: figures.faster(SMALL, found, name) for name in found["peers"]}
    assert said == {
        "limit": "", "fanin": "", "jax-scan": "jax-scan", "torch": "either", "flax": "fanin", "fanin-call": ""
    }  # fmt: skip
    assert [name for name, _ in figures.rivals_ahead(SMALL, found)] == ["jax-scan", "torch"]


def test_tables_have_the_largest_unit_in_which_no_peer_is_below_one(found_of: Any) -> None:
    heads, limit, fanin, torch = figures.table(SMALL, found_of(limit=[1e3], fanin=[2e3, 4e3], torch=[1.5e6, 1.5e6]))
    assert heads == ["", "median ms", "least", "most", "rounds", "fanin / peer", "faster", "share", "loss"]
    assert limit[:3] == ["limit", "1.00", "1.00"]
    assert fanin[:6] == ["fanin", "3.00", "2.00", "4.00", "2", ""]
    assert torch[1:] == [
        "1,500",
        "1,500",
        "1,500",
        "2",
        "0.002 (0.001 to 0.003)",
        "fanin",
        "0.00",
        "2.0000 -> 1.0000",
    ]
    assert figures.scale(found_of(fanin=[999.0], torch=[1e7])) == ("us", 1.0)
    assert figures.scale({"peers": {}}) == ("us", 1.0)


def test_columns_that_would_be_empty_are_left_out(found_of: Any) -> None:
    found = found_of(torch=[4.0])
    del found["peers"]["torch"][0]["losses"]
    contest = Contest("a call", "benchmarks.call", ())
    assert figures.table(contest, found)[0] == ["", "median us", "least", "most", "rounds"]
    assert figures.verdicts(contest, found) == []


def test_numbers_keep_three_digits() -> None:
    assert [figures.number(value) for value in (1234.5, 100, 99.94, 9.876, 0.5)] == [
        "1,234", "100", "99.9", "9.88", "0.50"
    ]  # fmt: skip
