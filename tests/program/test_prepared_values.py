"""Programs whose static tensors stay: what is computed from them alone is computed by `prepare`, and only there."""

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import fanin.program.run
from fanin.program import Program
from fanin.program.passes import PASSES, ROUNDING, UNTIL_PREPARED
from fanin.program.passes.prepared_values import mark_prepared
from fanin.program.trace import trace

pytestmark = pytest.mark.usefixtures("by_torch_alone")

aten = torch.ops.aten
EXACT = tuple(one for one in PASSES if one not in ROUNDING)
X = torch.arange(12.0).reshape(4, 3) - 5
W = torch.linspace(-1, 1, 9).reshape(3, 3)


def prepared(function):
    traced = trace(function, [W], [X])
    mark_prepared(traced)
    return [node.target for node in traced.graph.nodes if node.meta.get("prepared")]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda w, x: [x.bfloat16() @ w.bfloat16()], [aten._to_copy.default]),
        (lambda w, x: [x @ (w @ w.t())], [aten.mm.default]),
        (lambda w, x: [x @ (w @ w).t()], [aten.mm.default]),  # the view is looked at again: nothing to compute
        (lambda w, x: [x + torch.relu(w[0] * 2)], [aten.mul.Tensor, aten.relu.default]),
        (lambda w, x: [x + (w * 2).split(1)[0]], [aten.mul.Tensor]),
    ],
    ids=["cast", "product", "view of a product", "chain", "part"],
)
def test_what_is_prepared(function, expected):
    assert prepared(function) == expected


@pytest.mark.parametrize(
    "function",
    [
        lambda w, x: [x @ w, x * 2],
        lambda w, x: [w * 2, x + 1],
        lambda w, x: [torch.rand_like(w) + x[:3]],
        lambda w, x: [(w * 2).add_(x[0])],
        lambda w, x: (lambda y: (y[0].mul_(x[0]), y + x[:3])[1:])(w + 1),
    ],
    ids=["of inputs", "returned", "random", "changed", "changed through a view"],
)
def test_what_is_not_prepared(function):
    assert prepared(function) == []
    assert not Program(function, [W], [X], further_passes=UNTIL_PREPARED).is_prepared


def test_changes_are_seen_by_prepare():
    def function(w, x):
        return [x @ (w @ w), x + w[0]]

    w = W.clone()
    program = Program(function, [w], [X], further_passes=UNTIL_PREPARED)
    assert program.is_prepared
    assert torch.equal(program(X)[0], function(w, X)[0])
    w.mul_(3)
    assert torch.equal(program(X)[0], function(W, X)[0])
    program.prepare()
    assert torch.equal(program(X)[0], function(w, X)[0])
    assert program.stats()[-1][1].operations == 2


def test_other_programs_prepare_nothing():
    w = W.clone()
    program = Program(lambda w, x: [x @ (w @ w)], [w], [X])
    assert not program.is_prepared
    w.mul_(3)
    assert torch.equal(program(X)[0], X @ (w @ w))


@settings(
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(seed=st.integers(0, 2**32))
def test_random_functions_give_the_same_bits(seed, straight, is_same):
    function = straight(seed)
    static = function.static()
    function(*static, *function.inputs())
    assume(all(is_same(one, two) for one, two in zip(static, function.static(), strict=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanin.program.run, "PASSES", EXACT)
        program = Program(function, static, function.inputs(), further_passes=UNTIL_PREPARED)
    for other in (None, 1, 2):
        expected = [None if one is None else one.clone() for one in function(*static, *function.inputs(other))]
        for one, two in zip(program(*function.inputs(other)), expected, strict=True):
            assert is_same(one, two), f"seed {seed}: {one} != {two}\n{program}"
