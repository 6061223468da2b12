"""Dtypes by name, and the policies of layers."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from fanin.dtypes import DTYPES, DTypePolicy, as_dtype, as_policy, dtype_name


@pytest.mark.parametrize("value", ["float32", torch.float32, np.float32, np.dtype("float32")])
def test_forms_of_a_dtype(value):
    assert as_dtype(value) is torch.float32


@pytest.mark.parametrize("name", DTYPES)
def test_names_and_dtypes_both_ways(name):
    assert dtype_name(as_dtype(name)) == name
    assert str(as_dtype(name)) == f"torch.{name}"


@pytest.mark.parametrize("value", ["float3", "", "object", object(), 3.5, np.dtype("U5")])
def test_what_is_no_dtype_is_refused(value):
    with pytest.raises(ValueError, match=r"Unknown dtype|Expected a dtype"):
        as_dtype(value)


@pytest.mark.parametrize(
    ("name", "variable", "compute"),
    [
        ("float16", "float16", "float16"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("mixed_float16", "float32", "float16"),
        ("mixed_bfloat16", "float32", "bfloat16"),
    ],
)
def test_policies(name, variable, compute):
    policy = DTypePolicy(name)
    assert (policy.name, policy.variable_dtype, policy.compute_dtype) == (name, variable, compute)
    assert (policy.variable, policy.compute) == (as_dtype(variable), as_dtype(compute))
    assert DTypePolicy.from_config(policy.get_config()) == policy
    assert hash(DTypePolicy(name)) == hash(policy)
    assert copy.deepcopy(policy) == pickle.loads(pickle.dumps(policy)) == policy
    assert repr(policy) == f"<DTypePolicy '{name}'>"


def test_unknown_policies_are_refused_with_a_hint():
    with pytest.raises(ValueError, match=r"'mixed_bfloat'.*'mixed_bfloat16'"):
        DTypePolicy("mixed_bfloat")
    with pytest.raises(ValueError, match="int32"):
        DTypePolicy("int32")


def test_forms_of_a_policy():
    policy = DTypePolicy("float64")
    assert as_policy(policy) is policy
    for value in ("float64", torch.float64, np.float64):
        assert as_policy(value) == policy
    keras = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float64"}, "registered_name": None}
    assert as_policy(keras) == policy
    for wrong in ({"class_name": "Other", "config": {"name": "float64"}}, {"config": {}}, {}):
        with pytest.raises(ValueError, match="config of a DTypePolicy"):
            as_policy(wrong)


def test_a_policy_moves_with_the_weights():
    mixed = DTypePolicy("mixed_bfloat16")
    assert mixed.moved_to(torch.float32) is mixed
    assert mixed.moved_to(torch.float64) == DTypePolicy("float64")
    assert DTypePolicy("float32") != mixed
    assert DTypePolicy("float32") != "float32"
