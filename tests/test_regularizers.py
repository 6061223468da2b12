"""Regularizers: closed forms, errors, names, JSON, and penalties of any module."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from fanin import regularizers
from fanin.registry import register_keras_serializable
from fanin.regularizers import L1, L1L2, L2, OrthogonalRegularizer, Regularizer, penalties, penalty, regularize

W = torch.tensor([[1.0, -2.0], [0.0, 3.0], [-4.0, 0.5]])


@pytest.mark.parametrize(
    ("regularizer", "expected"),
    [
        (L1(), 0.01 * 10.5),
        (L1(0.5), 0.5 * 10.5),
        (L2(), 0.01 * 30.25),
        (L2(0.5), 0.5 * 30.25),
        (L1L2(), 0.0),
        (L1L2(l1=0.5), 0.5 * 10.5),
        (L1L2(l2=0.5), 0.5 * 30.25),
        (L1L2(0.1, 0.2), 0.1 * 10.5 + 0.2 * 30.25),
        (Regularizer(), 0.0),
    ],
)
def test_closed_forms(regularizer, expected):
    found = regularizer(W)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_gradients():
    for regularizer, expected in (
        (L1(0.5), 0.5 * W.sign()),
        (L2(0.5), W),
        (L1L2(0.5, 0.25), 0.5 * W.sign() + 0.5 * W),
    ):
        w = W.clone().requires_grad_()
        regularizer(w).backward()
        torch.testing.assert_close(w.grad, expected)


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_orthogonal(mode):
    rows = (W if mode == "rows" else W.t()).double()
    pairs = [(a, b) for a in range(len(rows)) for b in range(a)]
    cosines = [abs(rows[a] @ rows[b] / rows[a].norm() / rows[b].norm()) for a, b in pairs]
    expected = 0.2 * sum(cosines) / len(pairs)
    assert OrthogonalRegularizer(0.2, mode)(W).item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.autograd.gradcheck(OrthogonalRegularizer(0.2, mode), W.double().requires_grad_())


def test_orthogonal_of_one_row_and_of_a_zero_row():
    one = torch.ones(1, 3, requires_grad=True)
    OrthogonalRegularizer()(one).backward()
    assert OrthogonalRegularizer()(one).item() == 0
    assert one.grad.tolist() == [[0, 0, 0]]
    zero_row = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]], requires_grad=True)
    OrthogonalRegularizer(3.0)(zero_row).backward()
    assert OrthogonalRegularizer(3.0)(zero_row).item() == pytest.approx(0.8)
    assert zero_row.grad.isfinite().all()


def test_orthogonal_needs_a_matrix():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        OrthogonalRegularizer()(torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("regularizer", [L1(), L2(), L1L2(), L1L2(0.1, 0.1), OrthogonalRegularizer()])
def test_dtype_is_kept(regularizer, dtype):
    assert regularizer(W.to(dtype)).dtype == dtype


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, -math.inf, "0.1", True, [0.1], 1j])
def test_bad_factors(bad):
    for make in (L1, L2, lambda f: L1L2(l1=f), lambda f: L1L2(l2=f), OrthogonalRegularizer):
        with pytest.raises(ValueError, match=r"must be a number in \[0, inf\), found"):
            make(bad)


def test_bad_mode():
    with pytest.raises(ValueError, match="'diagonals'"):
        OrthogonalRegularizer(mode="diagonals")


def test_none_means_the_default():
    assert (L1(None).l1, L2(None).l2, L1L2(None, None).get_config()) == (0.01, 0.01, {"l1": 0.0, "l2": 0.0})
    assert L2(np.float32(0.5)).get_config() == {"l2": 0.5}


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cls", "fields"),
    [
        ("l1", L1, {"l1": 0.01}),
        ("L2", L2, {"l2": 0.01}),
        ("l2", L2, {"l2": 0.01}),
        ("l1_l2", L1L2, {"l1": 0.01, "l2": 0.01}),
        ("l1l2", L1L2, {"l1": 0.0, "l2": 0.0}),
        ("L1L2", L1L2, {"l1": 0.0, "l2": 0.0}),
        ("orthogonal_regularizer", OrthogonalRegularizer, {"factor": 0.01, "mode": "rows"}),
    ],
)
def test_names(name, cls, fields):
    for found in (regularizers.get(name), regularizers.deserialize(name)):
        assert type(found) is cls
        assert found.get_config() == fields


def test_get():
    assert regularizers.get(None) is None
    assert type(regularizers.get(L2)) is L2
    function = torch.sum
    assert regularizers.get(function) is function
    assert regularizers.get({"class_name": "L1L2", "config": {"l1": 0.5, "l2": 0.25}}).l1 == 0.5
    with pytest.raises(ValueError, match=r"Unknown regularizer 'l3'.*'l1'"):
        regularizers.get("l3")
    with pytest.raises(TypeError, match=r"0\.01"):
        regularizers.get(0.01)


@pytest.mark.parametrize("regularizer", [L1(0.5), L2(1e-4), L1L2(0.5, 0.25), OrthogonalRegularizer(0.5, "columns")])
def test_json_round_trip(regularizer):
    written = json.loads(json.dumps(regularizers.serialize(regularizer)))
    loaded = regularizers.deserialize(written)
    assert type(loaded) is type(regularizer)
    assert loaded.get_config() == regularizer.get_config()


def test_registered_function_and_class():
    @register_keras_serializable("tests")
    def largest(x):
        return x.abs().max()

    @register_keras_serializable("tests")
    class Cubic(Regularizer):
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, x):
            return self.factor * (x.abs() ** 3).sum()

        def get_config(self):
            return {"factor": self.factor}

    assert regularizers.deserialize(regularizers.serialize(largest)) is largest
    loaded = regularizers.deserialize(json.loads(json.dumps(regularizers.serialize(Cubic(2.0)))))
    assert loaded(torch.tensor([-1.0, 2.0])).item() == 18
    own = L2(7.0)
    assert regularizers.deserialize("l1_l2", custom_objects={"l1_l2": own}) is own
    with pytest.raises(ValueError, match="lambda"):
        regularizers.serialize(lambda x: x.sum())
    with pytest.raises(NotImplementedError, match="Regularizer"):
        regularizers.serialize(Regularizer())


# --- any module -------------------------------------------------------------------------------------------------------


def model():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def test_penalty_of_any_module():
    net = model()
    assert penalty(net).item() == 0
    assert penalties(net) == []
    assert regularize(net, {"*.weight": L2(0.5), "2.bias": "l1"}) == ["0.weight", "2.weight", "2.bias"]
    w0, w2, b2 = net[0].weight, net[2].weight, net[2].bias
    expected = 0.5 * w0.square().sum() + 0.5 * w2.square().sum() + 0.01 * b2.abs().sum()
    assert len(penalties(net)) == 3
    torch.testing.assert_close(penalty(net), expected)
    penalty(net).backward()
    torch.testing.assert_close(w0.grad, w0.detach())
    assert net[0].bias.grad is None


def test_a_plain_loop_shrinks_the_weights():
    net = nn.Linear(4, 4, bias=False)
    regularize(net, {"weight": L2(0.5)})
    before = net.weight.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    penalty(net).backward()
    optimizer.step()
    torch.testing.assert_close(net.weight.detach(), 0.9 * before)


def test_frozen_weights_give_none_and_shared_ones_one():
    net = model()
    regularize(net, {"*.weight": "l2"})
    net[0].weight.requires_grad_(False)
    assert len(penalties(net)) == 1
    tied = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    tied[1].weight = tied[0].weight
    regularize(tied, {"*.weight": "l2"})
    assert len(penalties(tied)) == 1


def test_lazy_weights_wait():
    net = nn.LazyLinear(3)
    assert regularize(net, {"*": "l2"}) == ["weight", "bias"]
    assert penalties(net) == []
    net(torch.ones(2, 4))
    assert len(penalties(net)) == 2


def test_the_last_rule_wins_and_none_takes_away():
    net = model()
    regularize(net, {"*": L1(1.0), "*.bias": None})
    assert len(penalties(net)) == 2
    regularize(net, {"0.weight": None})
    assert len(penalties(net)) == 1


def test_an_error_changes_nothing():
    net = model()
    for rules, message in (
        ({"0.weight": "l2", "*.wieght": "l2"}, r"wieght"),
        ({"0.weight": "l2", "2.weight": "l3"}, r"'l3'"),
    ):
        with pytest.raises(ValueError, match=message):
            regularize(net, rules)
    assert penalties(net) == []


def test_deepcopy_keeps_the_rules_apart():
    net = model()
    regularize(net, {"*.weight": "l2"})
    twin = copy.deepcopy(net)
    regularize(net, {"*.weight": None})
    assert penalties(net) == []
    assert len(penalties(twin)) == 2
    torch.testing.assert_close(penalty(twin), 0.01 * sum(twin[i].weight.square().sum() for i in (0, 2)))


def test_own_functions():
    net = nn.Linear(2, 2)
    regularize(net, {"weight": lambda w: 0.5, "bias": lambda w: w.abs().max().reshape(1)})
    assert [p.shape for p in penalties(net)] == [(), ()]
    assert penalty(net).item() == pytest.approx(0.5 + net.bias.abs().max().item())


@pytest.mark.parametrize("wrong", [lambda w: w, lambda w: None, lambda w: "a"])
def test_no_scalar_is_refused_by_name(wrong):
    net = model()
    regularize(net, {"2.weight": wrong})
    with pytest.raises(ValueError, match=r"'2\.weight'"):
        penalties(net)


def test_an_error_inside_names_the_weight():
    net = model()
    regularize(net, {"0.bias": OrthogonalRegularizer()})
    with pytest.raises(ValueError, match="matrices") as caught:
        penalties(net)
    assert "'0.bias'" in caught.value.__notes__[0]


def test_a_parametrized_weight_is_penalized_as_it_is_used():
    class Double(nn.Module):
        def forward(self, x):
            return 2 * x

    net = nn.Sequential(*[nn.Linear(2, 2) for _ in range(20)])
    regularize(net, {"*.weight": L2(1.0)})
    for layer in net:
        parametrize.register_parametrization(layer, "weight", Double())
    expected = sum(layer.weight.square().sum() for layer in net)
    torch.testing.assert_close(penalty(net), expected)
    with torch.no_grad():
        assert len(penalties(net)) == 20
        assert not penalty(net).requires_grad
