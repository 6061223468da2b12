"""Scales and weighted sums of adapters."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from fanin import adapters

EASY = settings(derandomize=True, deadline=None, max_examples=30, phases=[Phase.generate])
INPUTS = torch.linspace(-1, 1, 20).reshape(5, 4)


def double(module):
    """In float64, so that the order of sums does not show."""
    return module.double()


def made(*names, alphas=(2, 5, 3), ranks=(2, 3, 1)):
    linear = nn.Linear(4, 3)
    for name, alpha, rank in zip(names, alphas, ranks, strict=False):
        adapters.add(linear, name, rank, alpha=alpha, b_initializer="random_normal", rslora=rank == 3)
    return double(linear)


def added(linear, name):
    """What an adapter adds to the outputs."""
    adapters.set_active(linear, name)
    return linear(INPUTS.double()) - nn.functional.linear(INPUTS.double(), linear.weight, linear.bias)


@EASY
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=3))
def test_a_sum_is_exact(weights):
    linear = made("a", "b", "c")
    names = ["a", "b", "c"][: len(weights)]
    expected = sum(weight * added(linear, name) for weight, name in zip(weights, names, strict=True))
    adapters.combine(linear, "sum", dict(zip(names, weights, strict=True)))
    assert linear.adapters["sum"].rank == sum((2, 3, 1)[: len(weights)])
    assert linear.active_adapter == names[-1]
    assert not linear.sum_weight_a.requires_grad
    # The new pair is float32: each number of A is copied exactly, each of B rounded once.
    linear.double()
    torch.testing.assert_close(added(linear, "sum"), expected, rtol=1e-6, atol=1e-6)


def test_a_sum_stands_alone_and_trains():
    linear = made("a", "b")
    adapters.combine(linear, "sum", {"a": 0.5, "b": -1})
    expected = added(linear.double(), "sum")
    adapters.remove(linear, "a")
    adapters.remove(linear, "b")
    assert torch.equal(added(linear, "sum"), expected)
    assert [name for name, p in linear.named_parameters() if p.requires_grad] == ["sum_weight_a", "sum_weight_b"]
    adapters.remove(linear, "sum")
    assert linear.weight.requires_grad


def test_layers_that_have_only_some():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    adapters.add(model, "a", 2, target="0", b_initializer="ones")
    adapters.add(model, "b", 1, target=["0", "1"], b_initializer="ones")
    adapters.combine(model, "sum", {"a": 1, "b": 2})
    assert [layer.adapters["sum"].rank for layer in model] == [3, 1]
    assert (model[1].sum_weight_b == 2).all()


def test_refusals_of_combine():
    linear = made("a")
    keys = list(linear.state_dict())
    with pytest.raises(ValueError, match="at least one"):
        adapters.combine(linear, "sum", {})
    with pytest.raises(TypeError, match=r"weights is a dict, name -> weight, found \['a'\]"):
        adapters.combine(linear, "sum", ["a"])
    with pytest.raises(ValueError, match="no adapter 'eve'; it has 'a'"):
        adapters.combine(linear, "sum", {"a": 1, "eve": 1})
    with pytest.raises(ValueError, match="an adapter 'a' already"):
        adapters.combine(linear, "a", {"a": 1})
    with pytest.raises(ValueError, match="the weight of 'a' must be a finite number"):
        adapters.combine(linear, "sum", {"a": float("nan")})
    assert list(linear.state_dict()) == keys


def test_scale():
    linear = made("a", "b")
    one = added(linear, "a")
    for factor in (0.0, -2, 0.5, 1):
        adapters.scale(linear, "a", factor)
        torch.testing.assert_close(added(linear, "a"), factor * one, rtol=1e-12, atol=1e-12)
    assert linear.adapters["b"].factor == 1
    with pytest.raises(ValueError, match="factor must be a finite number"):
        adapters.scale(linear, "a", "2")
    with pytest.raises(ValueError, match="no adapter 'eve'"):
        adapters.scale(linear, "eve", 2)
