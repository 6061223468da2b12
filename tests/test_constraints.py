"""Constraints: closed forms, errors, names, JSON, and projections of any module."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from fanin import config, constraints
from fanin.constraints import Constraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm, constrain
from fanin.registry import register_keras_serializable

W = torch.tensor([[3.0, 0.3, 0.0], [-4.0, 0.4, 0.0]], dtype=torch.float64)  # columns of norm 5, 0.5, 0


def norms(w):
    return [round(v, 6) for v in w.norm(dim=0).tolist()]


def test_closed_forms():
    assert norms(MaxNorm()(W)) == [2, 0.5, 0]
    assert norms(MaxNorm(1.0)(W)) == [1, 0.5, 0]
    assert norms(UnitNorm()(W)) == [1, 1, 0]
    assert norms(MinMaxNorm()(W)) == [1, 0.5, 0]
    assert norms(MinMaxNorm(1.0, 2.0)(W)) == [2, 1, 0]
    assert norms(MinMaxNorm(1.0, 2.0, rate=0.5)(W)) == [3.5, 0.75, 0]
    assert norms(MinMaxNorm(1.0, 2.0, rate=0.0)(W)) == [5, 0.5, 0]
    assert NonNeg()(W).tolist() == [[3.0, 0.3, 0.0], [0.0, 0.4, 0.0]]
    assert Constraint()(W) is W


def test_directions_stay():
    cosine = torch.nn.functional.cosine_similarity
    for constraint in (MaxNorm(), UnitNorm(), MinMaxNorm(7.0, 8.0)):
        torch.testing.assert_close(cosine(constraint(W)[:, :2], W[:, :2], dim=0), torch.ones(2, dtype=W.dtype))


def test_epsilon_is_that_of_the_settings():
    config.set_epsilon(1.0)
    torch.testing.assert_close(UnitNorm()(W).norm(dim=0), torch.tensor([5 / 6, 0.5 / 1.5, 0.0], dtype=W.dtype))
    torch.testing.assert_close(MaxNorm()(W).norm(dim=0), torch.tensor([10 / 6, 0.25 / 1.5, 0.0], dtype=W.dtype))


def test_axes():
    w = torch.randn(2, 3, 4)
    torch.testing.assert_close(UnitNorm(axis=-1)(w).norm(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(UnitNorm(axis=[0, 1])(w).norm(dim=(0, 1)), torch.ones(4))
    torch.testing.assert_close(MaxNorm(0.5, axis=None)(w).norm(), torch.tensor(0.5))
    assert UnitNorm(axis=(0, np.int64(1))).get_config() == {"axis": [0, 1]}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("constraint", [MaxNorm(), UnitNorm(), MinMaxNorm(), NonNeg()])
def test_dtype_is_kept_and_zeros_stay_finite(constraint, dtype):
    found = constraint(W.to(dtype))
    assert found.dtype == dtype
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxNorm(-1), "max_value.*-1"),
        (lambda: MaxNorm(math.nan), "max_value.*nan"),
        (lambda: MaxNorm(math.inf), "max_value.*inf"),
        (lambda: MaxNorm("2"), "max_value.*'2'"),
        (lambda: MaxNorm(True), "max_value.*True"),
        (lambda: MinMaxNorm(min_value=-1.0), "min_value.*-1"),
        (lambda: MinMaxNorm(2.0, 1.0), r"min_value must not exceed max_value.*2\.0 and 1\.0"),
        (lambda: MinMaxNorm(rate=1.5), r"rate must be a number in \[0, 1\], found 1\.5"),
        (lambda: MinMaxNorm(rate=-0.5), "rate"),
        (lambda: MaxNorm(axis=1.5), r"axis.*1\.5"),
        (lambda: UnitNorm(axis="rows"), "axis.*'rows'"),
        (lambda: UnitNorm(axis=[0, "a"]), "axis"),
        (lambda: UnitNorm(axis=[]), "axis"),
        (lambda: MinMaxNorm(axis=True), "axis.*True"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cls"),
    [("max_norm", MaxNorm), ("min_max_norm", MinMaxNorm), ("non_neg", NonNeg), ("unit_norm", UnitNorm)],
)
def test_names(name, cls):
    assert type(constraints.get(name)) is type(constraints.get(cls.__name__)) is type(constraints.get(cls)) is cls
    assert getattr(constraints, name) is cls


def test_get():
    assert constraints.get(None) is None
    assert constraints.get(torch.abs) is torch.abs
    assert constraints.get({"class_name": "MaxNorm", "config": {"max_value": 3, "axis": 0}}).max_value == 3
    with pytest.raises(ValueError, match=r"Unknown constraint 'nonneg'.*'non_neg'"):
        constraints.get("nonneg")
    with pytest.raises(TypeError, match="2"):
        constraints.get(2)


@pytest.mark.parametrize(
    "constraint", [MaxNorm(3, [0, 1]), MinMaxNorm(0.5, 1.5, 0.5, 1), NonNeg(), UnitNorm(1)], ids=lambda c: str(type(c))
)
def test_json_round_trip(constraint):
    loaded = constraints.deserialize(json.loads(json.dumps(constraints.serialize(constraint))))
    assert type(loaded) is type(constraint)
    assert loaded.get_config() == constraint.get_config()
    assert type(loaded).from_config(loaded.get_config()).get_config() == constraint.get_config()


def test_registered_function_and_class():
    @register_keras_serializable("tests")
    def absolute(w):
        return w.abs()

    @register_keras_serializable("tests")
    class Clip(Constraint):
        def __init__(self, limit):
            self.limit = limit

        def __call__(self, w):
            return w.clamp(-self.limit, self.limit)

        def get_config(self):
            return {"limit": self.limit}

    assert constraints.deserialize(constraints.serialize(absolute)) is absolute
    loaded = constraints.deserialize(json.loads(json.dumps(constraints.serialize(Clip(0.5)))))
    assert loaded(torch.tensor([-1.0, 0.1])).tolist() == [-0.5, pytest.approx(0.1)]
    assert constraints.deserialize("mine", custom_objects={"mine": absolute}) is absolute
    with pytest.raises(ValueError, match="lambda"):
        constraints.serialize(lambda w: w)


# --- any module -------------------------------------------------------------------------------------------------------


def model():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def test_weight_clipping_in_a_plain_loop():
    critic = model()
    assert len(constrain(critic, {"*": lambda w: w.clamp(-0.01, 0.01)})) == 4
    optimizer = torch.optim.SGD(critic.parameters(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        (-critic(torch.randn(8, 2)).mean()).backward()
        optimizer.step()
        constraints.apply(critic)
        assert all(p.abs().max() <= 0.01 for p in critic.parameters())
    assert all(p.requires_grad and p.is_leaf and p.grad is not None for p in critic.parameters())


def test_only_the_named_weights_change():
    net = model()
    before = copy.deepcopy(net.state_dict())
    assert constrain(net, {"*.weight": "unit_norm", "2.weight": None}) == ["0.weight", "2.weight"]
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())  # not before `apply`
    pointer = net[0].weight.data_ptr()
    constraints.apply(net)
    torch.testing.assert_close(net[0].weight.detach(), UnitNorm()(before["0.weight"]))
    assert net[0].weight.data_ptr() == pointer
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items() if k != "0.weight")


def test_frozen_lazy_and_shared_weights():
    net = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3), nn.LazyLinear(2)])
    net[1].weight = net[0].weight
    calls = []
    constrain(net, {"*.weight": lambda w: calls.append(1) or 2 * w, "0.bias": NonNeg()})
    net[0].bias.requires_grad_(False)
    before, bias = net[0].weight.detach().clone(), net[0].bias.clone()
    constraints.apply(net)
    assert len(calls) == 1
    assert torch.equal(net[0].weight, 2 * before)
    assert torch.equal(net[0].bias, bias)


def test_in_place_functions_work():
    net = nn.Linear(3, 3)
    constrain(net, {"weight": lambda w: w.clamp_(-0.01, 0.01)})
    constraints.apply(net)
    assert net.weight.abs().max() <= 0.01


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda w: w.t(), r"'2\.weight'.*\(1, 3\).*\(3, 1\)"),
        (lambda w: w[0, 0], r"'2\.weight'"),
        (lambda w: w.double(), r"'2\.weight'.*float32.*float64"),
        (lambda w: None, r"'2\.weight'.*None"),
        (lambda w: 1.0, r"'2\.weight'"),
    ],
)
def test_a_wrong_result_is_refused_and_nothing_changes(wrong, message):
    net = model()
    constrain(net, {"*": NonNeg(), "2.weight": wrong})
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=message):
        constraints.apply(net)
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


def test_an_error_inside_names_the_weight():
    net = model()
    constrain(net, {"0.bias": MaxNorm(axis=1)})
    with pytest.raises(IndexError) as caught:
        constraints.apply(net)
    assert "'0.bias'" in caught.value.__notes__[0]


def test_an_error_in_the_rules_changes_nothing():
    net = model()
    for rules in ({"*.weight": NonNeg(), "3.*": NonNeg()}, {"*.weight": NonNeg(), "*": "positive"}):
        with pytest.raises(ValueError, match=r"3\.\*|positive"):
            constrain(net, rules)
    before = copy.deepcopy(net.state_dict())
    constraints.apply(net)
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize("gradients", [True, False])
def test_a_computed_weight_is_refused(gradients):
    class Double(nn.Module):
        def forward(self, x):
            return 2 * x

    net = nn.Linear(2, 2)
    constrain(net, {"weight": NonNeg()})
    parametrize.register_parametrization(net, "weight", Double())
    with torch.set_grad_enabled(gradients), pytest.raises(ValueError, match="'weight' is computed"):
        constraints.apply(net)


def test_deepcopy_keeps_the_rules():
    net = model()
    constrain(net, {"*.weight": NonNeg()})
    twin = copy.deepcopy(net)
    constraints.apply(twin)
    assert all(twin[i].weight.min() >= 0 for i in (0, 2))
    assert net[0].weight.min() < 0 or net[2].weight.min() < 0
