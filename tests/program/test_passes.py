"""Each pass alone: what it drops, what it has to keep, and that values stay."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fanin.program.run
from fanin.program import Program
from fanin.program.passes import PASSES, ROUNDING
from fanin.program.passes.bias_gradients import sum_rows_by_product
from fanin.program.passes.common_subexpressions import merge_common_subexpressions
from fanin.program.passes.cross_entropy import simplify_cross_entropy
from fanin.program.passes.dead_code import drop_dead_code
from fanin.program.passes.fused_activations import fuse_activations
from fanin.program.passes.hoisting import mark_constants
from fanin.program.passes.redundant_copies import drop_copies
from fanin.program.passes.redundant_views import drop_views
from fanin.program.passes.rewrite import replace
from fanin.program.trace import trace
from fanin.program.verify import verify

pytestmark = pytest.mark.usefixtures("by_torch_alone")

aten = torch.ops.aten
EXACT = tuple(dict.fromkeys(p for p in PASSES if p not in ROUNDING))
X = torch.arange(12.0).reshape(4, 3) - 5
W = torch.linspace(-1, 1, 9).reshape(3, 3)


def simplified(simplify, function, static=(W,), inputs=(X,)):
    """The operations that a pass leaves; the values of a program with this pass only are those of the function."""
    traced = trace(function, static, inputs)
    simplify(traced.graph)
    verify(traced, "pass")
    return traced, [node.target for node in traced.graph.nodes if node.op == "call_function"]


def values_stay(simplify, function, is_same, static=(W,), inputs=(X,)):
    """A program with this pass only does to results, static tensors and inputs what the function does, twice."""
    kept, twins = [one.clone() for one in static], [one.clone() for one in static]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanin.program.run, "PASSES", (simplify,))
        program = Program(function, kept, [one.clone() for one in inputs])
    for _ in range(2):
        given, plain = [one.clone() for one in inputs], [one.clone() for one in inputs]
        torch.manual_seed(1)
        expected = [None if one is None else one.clone() for one in function(*twins, *plain)]
        torch.manual_seed(1)
        found = program(*given)
        for one, two in zip([*found, *kept, *given], [*expected, *twins, *plain], strict=True):
            assert is_same(one, two), (one, two, str(program))


def named(*targets):
    return list(targets)


DROPPED = {  # pass, function, operations that are left
    "detach": (drop_views, lambda w, x: [x.detach() + 1], named(aten.add.Tensor)),
    "turned twice": (drop_views, lambda w, x: [x.t().t() + 1], named(aten.t.default, aten.add.Tensor)),
    "turned twice by transpose": (
        drop_views,
        lambda w, x: [x.transpose(0, 1).transpose(0, 1) * 2],
        named(aten.transpose.int, aten.mul.Tensor),
    ),
    "view of the same shape": (drop_views, lambda w, x: [x.view(4, 3) + 1], named(aten.add.Tensor)),
    "expanded to the same shape": (drop_views, lambda w, x: [x.expand(4, 3) + 1], named(aten.add.Tensor)),
    "whole slice": (drop_views, lambda w, x: [x[:] + 1, x[0:4] * 2], named(aten.add.Tensor, aten.mul.Tensor)),
    "clone": (drop_copies, lambda w, x: [x.clone() + 1], named(aten.add.Tensor)),
    "copy to the same dtype": (drop_copies, lambda w, x: [x.to(torch.float32, copy=True) + 1], named(aten.add.Tensor)),
    "clone of a static tensor": (drop_copies, lambda w, x: [x @ w.clone()], named(aten.mm.default)),
    "clone that a change comes after": (
        drop_copies,
        lambda w, x: (lambda y: (x.add_(1), y)[1:])(x.clone() * 2),
        named(aten.mul.Tensor, aten.add_.Tensor),
    ),
    "same product": (
        merge_common_subexpressions,
        lambda w, x: [(x @ w) + 1, (x @ w) * 2],
        named(aten.mm.default, aten.add.Tensor, aten.mul.Tensor),
    ),
    "same chain": (
        merge_common_subexpressions,
        lambda w, x: [torch.relu(x @ w) + torch.relu(x @ w)],
        named(aten.mm.default, aten.relu.default, aten.add.Tensor),
    ),
    "unread chain": (drop_dead_code, lambda w, x: ((x @ w).relu(), [x + 1])[1], named(aten.add.Tensor)),
    "relu of addmm": (
        fuse_activations,
        lambda w, x: [torch.relu(torch.addmm(w[0], x, w))],
        named(aten.select.int, aten._addmm_activation.default),
    ),
    "sum over rows": (
        sum_rows_by_product,
        lambda w, x: [x.sum(0, keepdim=True)],
        named(aten.full.default, aten.mm.default),
    ),
}

KEPT = {  # pass, function: no operation is dropped
    "turned once": (drop_views, lambda w, x: [x.t() + 1]),
    "turned by other axes": (drop_views, lambda w, x: [x[None].permute(1, 2, 0).permute(1, 2, 0) + 1]),
    "square turned": (drop_views, lambda w, x: [w.t() + 1, w.t()]),
    "part": (drop_views, lambda w, x: [x[1:] + 1, x[0] * 2]),
    "row of a square with its shape": (
        drop_views,
        lambda w, x: [x.as_strided((2, 3), (3, 1), 3) + x.as_strided((2, 3), (3, 1), 0)],
    ),
    "copy, then the original changes": (drop_copies, lambda w, x: (lambda y: (x.add_(1), y * 1)[1:])(x.clone())),
    "copy that is returned": (drop_copies, lambda w, x: (lambda y: (x.add_(1), y)[1:])(x.clone())),
    "copy that changes": (drop_copies, lambda w, x: (lambda y: (y.add_(1), y * x)[1:])(x.clone())),
    "copy of which a view changes": (drop_copies, lambda w, x: (lambda y: (y[0].add_(1), y * x)[1:])(x.clone())),
    "copy, then a view of the original changes": (
        drop_copies,
        lambda w, x: (lambda y: (x[0].zero_(), y * 1)[1:])(x.clone()),
    ),
    "copy, read through a view after the change": (
        drop_copies,
        lambda w, x: (lambda y: (x.zero_(), y * 1)[1:])(x.clone()[0]),
    ),
    "copy of a static tensor, before its update": (
        drop_copies,
        lambda w, x: (lambda old: (w.add_(1), w - old)[1:])(w.clone()),
    ),
    "copy by foreach": (drop_copies, lambda w, x: (lambda y: (torch._foreach_add_([x, w], 1.0), y * 1)[1:])(x.clone())),
    "cast": (drop_copies, lambda w, x: [x.double() + 1, x.bfloat16()]),
    "copy into another order": (drop_copies, lambda w, x: [x.t().contiguous() + 1]),
    "same, but changed between": (
        merge_common_subexpressions,
        lambda w, x: (lambda a: (x.add_(1), a + x * 2)[1:])(x * 2),
    ),
    "same, but a view changed between": (
        merge_common_subexpressions,
        lambda w, x: (lambda a: (x[1].add_(1), a + x * 2)[1:])(x * 2),
    ),
    "same, but one of them changes": (
        merge_common_subexpressions,
        lambda w, x: (lambda a, b: (a.add_(1), a + b)[1:])(x * 2, x * 2),
    ),
    "same, but a view of one changes": (
        merge_common_subexpressions,
        lambda w, x: (lambda a, b: (b[0].add_(1), a + b)[1:])(x * 2, x * 2),
    ),
    "other numbers": (
        merge_common_subexpressions,
        lambda w, x: [(x * 2) + (x * 3), (x * 1) + (x * 1.0), (x + True) * (x + 1)],
    ),
    "other dtypes": (merge_common_subexpressions, lambda w, x: [torch.zeros(3), torch.zeros(3, dtype=torch.int64) + 1]),
    "zeros and minus zeros": (merge_common_subexpressions, lambda w, x: [(x * 0.0) + (x * -0.0)]),
    "random": (
        merge_common_subexpressions,
        lambda w, x: [torch.rand(3) + torch.rand(3), F.dropout(x, 0.5) + F.dropout(x, 0.5)],
    ),
    "random memory": (merge_common_subexpressions, lambda w, x: [torch.empty(3).normal_() + torch.empty(3).normal_()]),
    "unread, but it changes": (drop_dead_code, lambda w, x: (w.add_(1), [x + 1])[1]),
    "unread, but it draws": (drop_dead_code, lambda w, x: (torch.rand(3), x.clone().bernoulli_(), [torch.rand(2)])[2]),
    "relu of addmm that is read twice": (
        fuse_activations,
        lambda w, x: (lambda y: [torch.relu(y) + y])(torch.addmm(w[0], x, w)),
    ),
    "relu of addmm that is returned": (
        fuse_activations,
        lambda w, x: (lambda y: [torch.relu(y), y])(torch.addmm(w[0], x, w)),
    ),
    "relu of addmm that changes": (fuse_activations, lambda w, x: [torch.relu(torch.addmm(w[0], x, w).add_(1))]),
    "relu of a view of addmm": (fuse_activations, lambda w, x: [torch.relu(torch.addmm(w[0], x, w).t())]),
    "tanh of addmm": (fuse_activations, lambda w, x: [torch.tanh(torch.addmm(w[0], x, w))]),
    "sum over columns": (sum_rows_by_product, lambda w, x: [x.sum(1, keepdim=True), x.sum(), x.sum((0, 1)), x.sum(-1)]),
    "sum of integers": (sum_rows_by_product, lambda w, x: [x.long().sum(0, keepdim=True)]),
    "sum of halves": (sum_rows_by_product, lambda w, x: [x.bfloat16().sum(0, keepdim=True)]),
    "sum in another dtype": (sum_rows_by_product, lambda w, x: [x.sum(0, keepdim=True, dtype=torch.float64)]),
    "sum of three axes": (sum_rows_by_product, lambda w, x: [x[None].sum(0, keepdim=True)]),
}


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_dropped(name, is_same):
    simplify, function, left = DROPPED[name]
    _, found = simplified(simplify, function)
    if simplify is drop_views:
        _, found = simplified(lambda graph: (simplify(graph), drop_dead_code(graph)), function)
        left = [one for one in left if one not in (aten.t.default, aten.transpose.int)]
    assert found == left
    if simplify is not sum_rows_by_product:
        values_stay(simplify, function, is_same)


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept(name, is_same):
    simplify, function = KEPT[name]
    before = [node.target for node in trace(function, [W], [X]).graph.nodes if node.op == "call_function"]
    _, found = simplified(simplify, function)
    assert found == before
    values_stay(simplify, function, is_same)


def constants(function):
    traced, _ = simplified(mark_constants, function)
    return [node.target for node in traced.graph.nodes if node.meta.get("constant")]


def test_constants_are_worked_out_once(is_same):
    def function(w, x):
        return [x + torch.arange(3) * 2, x * torch.ones_like(x), x + torch.zeros(3), x.new_zeros(3) + x]

    found = constants(function)
    assert aten.arange.default in found
    assert aten.mul.Tensor in found
    assert found.count(aten.full.default) >= 2
    values_stay(mark_constants, function, is_same)


@pytest.mark.parametrize(
    "function",
    [
        lambda w, x: (lambda c: [c.add_(1) * x])(torch.zeros(3)),
        lambda w, x: (lambda c: (c[0].add_(x[0, 0]), c + x)[1:])(torch.zeros(3)),
        lambda w, x: [torch.rand(3) + x],
        lambda w, x: [torch.empty(3).fill_(1) + x],
        lambda w, x: [w * 2 + x[:3]],  # a static tensor is not a constant: it may change between runs
    ],
)
def test_what_changes_is_no_constant(function, is_same):
    marked = constants(function)
    assert aten.add.Tensor not in marked
    assert aten.mul.Tensor not in marked
    assert not any("empty" in str(one) or "rand" in str(one) for one in marked)
    values_stay(mark_constants, function, is_same)


def test_a_constant_that_is_returned_is_not_given_away():
    program = Program(lambda x: [torch.ones(3), x], [], [X])
    program(X)[0].add_(5)
    assert program(X)[0].tolist() == [1, 1, 1]


def cross_entropy(reduce=lambda losses: losses.mean(), **options):
    def function(logits, labels):
        logits = logits.detach().requires_grad_()
        with torch.enable_grad():
            losses = F.nll_loss(
                torch.log_softmax(logits, -1), labels, reduction="none", **{"ignore_index": -(1 << 62), **options}
            )
            total = reduce(losses)
        return [total.detach(), torch.autograd.grad(total, logits)[0]]

    return function


REDUCED = {
    "mean": (cross_entropy(), True),
    "scaled mean": (cross_entropy(lambda losses: losses.mean() * 0.3), True),
    "mean, and another reader": (cross_entropy(lambda losses: losses.mean() + 0 * losses.max()), False),
    "sum": (cross_entropy(lambda losses: losses.sum()), True),
    "sum over the batch size": (cross_entropy(lambda losses: losses.sum() / 8), True),
    "weighted": (cross_entropy(lambda losses: (losses * torch.linspace(0, 1, 8, dtype=losses.dtype)).mean()), False),
    "labels that are ignored": (cross_entropy(ignore_index=2), False),
    "squared": (cross_entropy(lambda losses: (losses**2).mean()), False),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", REDUCED)
def test_cross_entropy(name, dtype):
    function, simple = REDUCED[name]
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(8, 5, dtype=dtype, generator=generator) * 3
    labels = torch.randint(0, 5, (8,), generator=generator)
    needed = [*PASSES[: PASSES.index(simplify_cross_entropy) + 1], drop_dead_code]
    _, found = simplified(lambda graph: [one(graph) for one in needed], function, (), (logits, labels))
    assert (aten.scatter_add_.default in found) is simple
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanin.program.run, "PASSES", needed)
        program = Program(function, [], [logits, labels])
    exact = function(logits.double(), labels)
    for _ in range(2):
        for one, plain, best in zip(program(logits, labels), function(logits, labels), exact, strict=True):
            bound = 2 * (plain - best).abs().max() + 4 * torch.finfo(dtype).eps * best.abs().max()
            assert ((one - best).abs() <= bound).all()
    for label in (5, -1, -100):
        with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
            program(logits, torch.full((8,), label))


def test_large_sums_stay_sums():
    many = torch.ones(1 << 12, 1 << 5)
    _, found = simplified(sum_rows_by_product, lambda x: [x.sum(0, keepdim=True)], (), (many,))
    assert found == [aten.sum.dim_IntList]


def test_a_replacement_of_another_layout_is_refused():
    traced = trace(lambda x: [x.t() + 1], [], [torch.ones(3, 3)])
    x, turned = list(traced.graph.nodes)[:2]
    with pytest.raises(AssertionError):
        replace(turned, x)


def test_a_graph_that_cannot_run_is_refused():
    traced = trace(lambda x: [(x + 1) * 2], [], [torch.ones(3)])
    _, first, second, _ = traced.graph.nodes
    first.append(second)
    first.prepend(second)  # now it reads what comes later
    with pytest.raises(AssertionError, match="after mistake: mul reads add"):
        verify(traced, "mistake")


def test_passes_do_not_change_programs_that_they_have_simplified():
    traced = trace(lambda w, x: [F.softmax(torch.relu(x @ w + w[0]), -1), (x @ w).sum(0, keepdim=True)], [W], [X])
    for simplify in PASSES:
        simplify(traced.graph)
    before = str(traced.graph)
    for simplify in PASSES:
        simplify(traced.graph)
    assert str(traced.graph) == before


@settings(
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32), passes=st.permutations(EXACT))
def test_passes_in_any_order_leave_the_values(seed, passes, straight, is_same):
    function = straight(seed)

    def all_of_them(graph):
        for simplify in passes:
            simplify(graph)

    values_stay(all_of_them, function, is_same, function.static(), function.inputs())
