"""Facts about weights: they live on the module, by name, and follow copies."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fanin.weights import CONSTRAINTS, REGULARIZERS, each_fact, get_fact, set_fact, set_facts


def test_set_get_and_take_away():
    module = nn.Linear(2, 3)
    assert get_fact(module, REGULARIZERS, "weight") is None
    set_fact(module, REGULARIZERS, "weight", abs)
    assert get_fact(module, REGULARIZERS, "weight") is abs
    assert get_fact(module, CONSTRAINTS, "weight") is None
    set_fact(module, REGULARIZERS, "weight", None)
    set_fact(module, REGULARIZERS, "weight", None)
    assert get_fact(module, REGULARIZERS, "weight") is None
    assert list(module.state_dict()) == ["weight", "bias"]


def test_patterns_name_parameters_and_the_last_match_wins():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 1, bias=False))
    found = set_facts(model, CONSTRAINTS, {"*.weight": 1, "1.*": 2, "*.bias": 3})
    assert sorted(found) == ["0.bias", "0.weight", "1.0.bias", "1.0.weight", "2.weight"]
    assert {name: value for name, _, value in each_fact(model, CONSTRAINTS)} == {
        "0.weight": 1, "0.bias": 3, "1.0.weight": 2, "1.0.bias": 3, "2.weight": 1,
    }  # fmt: skip
    assert set_facts(nn.Linear(2, 3), CONSTRAINTS, {"*.weight": 1}) == ["weight"]


def test_a_pattern_without_a_match_changes_nothing():
    model = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"'wait' matches no parameter of Linear.*'weight'"):
        set_facts(model, REGULARIZERS, {"*": 1, "wait": 2})
    assert list(each_fact(model, REGULARIZERS)) == []


def test_shared_weights_count_once():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    set_facts(model, REGULARIZERS, {"*.weight": 1})
    assert [name for name, _, _ in each_fact(model, REGULARIZERS)] == ["0.weight"]


def test_a_weight_that_is_gone_has_no_facts():
    model = nn.Linear(2, 3)
    set_facts(model, REGULARIZERS, {"*": 1})
    model.bias = None
    assert [name for name, _, _ in each_fact(model, REGULARIZERS)] == ["weight"]


def test_facts_follow_deepcopy_and_replaced_parameters():
    model = nn.Linear(2, 3)
    set_fact(model, REGULARIZERS, "weight", "rule")
    twin = copy.deepcopy(model)
    ((name, weight, value),) = each_fact(twin, REGULARIZERS)
    assert (name, value) == ("weight", "rule")
    assert weight is twin.weight
    model.weight = nn.Parameter(torch.zeros(3, 2))
    ((_, weight, _),) = each_fact(model, REGULARIZERS)
    assert weight is model.weight
    set_fact(twin, REGULARIZERS, "weight", None)
    assert get_fact(model, REGULARIZERS, "weight") == "rule"
