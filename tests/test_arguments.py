"""Numbers in arguments: what counts as one, and the words in which others are refused."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from fanin import arguments

NO_NUMBERS = [True, np.True_, None, "1", [1], 1j, torch.ones(2), np.ones((2, 1))]


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_integers_of_python_and_numpy_are_whole(value):
    assert arguments.is_whole(value, 3)
    assert not arguments.is_whole(value, 4)
    found = arguments.whole("n", value)
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize("value", [*NO_NUMBERS, 3.0, np.float32(3)])
def test_what_is_not_whole(value):
    assert not arguments.is_whole(value)
    with pytest.raises(ValueError, match=r"^n must be a whole number of 0 or more, found "):
        arguments.whole("n", value)
    with pytest.raises(ValueError, match=r"^axis must be an int, found "):
        arguments.axis(value)


@pytest.mark.parametrize("value", ["epoch", 1, np.int64(20)])
def test_epochs_and_numbers_of_batches(value):
    found = arguments.frequency("save_freq", value)
    assert found == value
    assert type(found) in (str, int)
    assert arguments.frequency("update_freq", "batch", ("batch", "epoch")) == "batch"


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, -1, 2.0, "batch", ["epoch"], np.array("epoch")])
def test_what_is_neither_epoch_nor_a_number_of_batches(value):
    with pytest.raises(ValueError, match=r"^save_freq must be 'epoch' or a number of batches, found "):
        arguments.frequency("save_freq", value)
    if not (isinstance(value, str) and value == "batch"):
        with pytest.raises(ValueError, match=r"^update_freq must be 'batch', 'epoch' or a number of batches, found "):
            arguments.frequency("update_freq", value, ("batch", "epoch"))


def test_limits_of_whole_numbers_are_told():
    with pytest.raises(ValueError, match=r"^units must be a positive integer, found 0\.$"):
        arguments.positive("units", 0)
    with pytest.raises(ValueError, match=r"^n must be a whole number of 2 or more, found 1\.$"):
        arguments.whole("n", 1, 2)


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2), torch.tensor([0.5]), np.array(0.5)]
)
def test_real_numbers_become_floats(value):
    assert arguments.number("rate", value, 0, 1) == 0.5
    assert type(arguments.number("rate", value, 0, 1)) is float


@pytest.mark.parametrize("value", [*NO_NUMBERS, np.nan, np.inf, -np.inf])
def test_what_is_no_finite_number(value):
    with pytest.raises(ValueError, match=r"^gain must be a finite number, found "):
        arguments.finite("gain", value)
    with pytest.raises(ValueError, match=r"^rate must be a number in \[0, inf\), found "):
        arguments.number("rate", value)


@pytest.mark.parametrize(
    ("ends", "good", "bad"),
    [
        ("[)", [0, 0.9], [-1e-9, 1]),
        ("()", [1e-9, 0.9], [0, 1]),
        ("(]", [1e-9, 1], [0, 1 + 1e-9]),
        ("[]", [0, 1], [-1, 2]),
    ],
)
def test_whether_limits_belong_to_what_is_allowed(ends, good, bad):
    assert [arguments.number("rate", value, 0, 1, ends=ends) for value in good] == good
    for value in bad:
        with pytest.raises(ValueError, match=f"^rate must be a number in \\{ends[0]}0, 1\\{ends[1]}, found {value}"):
            arguments.number("rate", value, 0, 1, ends=ends)


def test_an_int_in_a_config_stays_one():
    assert [type(arguments.plain("n", value)) for value in (2, np.int64(2), 2.0, np.float32(2))] == [
        int,
        int,
        float,
        float,
    ]


def test_seeds_and_flags():
    assert arguments.integer("seed", None) is None
    assert arguments.integer("seed", np.int64(-3)) == -3
    assert arguments.flag("on", np.True_) is True
    with pytest.raises(ValueError, match=r"^seed must be an integer or None, found 1\.5\.$"):
        arguments.integer("seed", 1.5)
    with pytest.raises(ValueError, match=r"^on must be True or False, found 1\.$"):
        arguments.flag("on", 1)
