"""ActivityRegularization."""

from __future__ import annotations

import pytest
import torch

import fanin
from fanin.layers import ActivityRegularization, Input


def test_the_penalty_is_the_formula_by_rows():
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    layer = ActivityRegularization(0.25, 0.5, dtype="float64")
    assert layer(x) is x
    expected = (0.25 * x.abs().sum() + 0.5 * x.square().sum()) / 5
    torch.testing.assert_close(layer.losses, [expected])


def test_in_a_model_and_on_symbols():
    layer = ActivityRegularization(l2=0.5)
    model = fanin.Sequential([Input((3,)), layer])
    assert len(layer.losses) == 1
    model(torch.ones(2, 3))
    assert [loss.item() for loss in model.losses] == [1.5]


def test_config_has_factors_and_no_regularizer():
    config = ActivityRegularization(0.25).get_config()
    assert "activity_regularizer" not in config
    assert (config["l1"], config["l2"]) == (0.25, 0.0)


def test_bad_factors():
    with pytest.raises(ValueError, match="l1"):
        ActivityRegularization(-1.0)
    with pytest.raises(ValueError, match="l2"):
        ActivityRegularization(l2="a")
