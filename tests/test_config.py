"""The global settings."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from fanin import config
from fanin.layers import Dense, Input


def test_floatx_is_the_dtype_of_new_layers_and_inputs():
    assert config.floatx() == "float32"
    config.set_floatx("float64")
    assert config.floatx() == "float64"
    assert Dense(2).dtype == "float64"
    assert Input((3,)).dtype == torch.float64
    with pytest.raises(ValueError, match=r"Unknown floatx 'float31'.*'float32'"):
        config.set_floatx("float31")
    assert config.floatx() == "float64"


def test_epsilon():
    assert config.epsilon() == 1e-7
    config.set_epsilon(1e-5)
    assert config.epsilon() == 1e-5
    for wrong in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive number"):
            config.set_epsilon(wrong)


def test_dtype_policy():
    assert config.dtype_policy().name == "float32"
    config.set_dtype_policy("mixed_bfloat16")
    assert Dense(2).dtype_policy.name == "mixed_bfloat16"
    config.set_floatx("float64")
    assert config.dtype_policy().name == "mixed_bfloat16"
    config.set_dtype_policy(None)
    assert config.dtype_policy().name == "float64"
    with pytest.raises(ValueError, match="Unknown dtype policy"):
        config.set_dtype_policy("mixed")


def test_unique_names_never_repeat():
    names = [config.unique_name(prefix) for prefix in ("a", "a", "a_1", "a", "a_1", "a_1_1", "b")]
    assert names[:3] == ["a", "a_1", "a_1_1"]
    assert len(set(names)) == len(names)
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda _: config.unique_name("c"), range(500)))
    assert sorted(many) == sorted(["c", *(f"c_{i}" for i in range(1, 500))])


def test_clear_session_starts_names_again():
    assert [Dense(2).name for _ in range(2)] == ["dense", "dense_1"]
    config.clear_session()
    assert Dense(2).name == "dense"


def test_clear_session_forgets_the_policy_and_collects_garbage_if_it_may():
    config.set_dtype_policy("mixed_float16")
    cycle = nn.Linear(1, 1)
    cycle.itself = [cycle]
    gone = weakref.ref(cycle)
    del cycle
    gc.disable()
    try:
        config.clear_session(free_memory=False)
        assert config.dtype_policy().name == "float32"
        assert gone() is not None
        config.clear_session()
        assert gone() is None
    finally:
        gc.enable()


def test_the_backend():
    assert config.backend() == "torch"
