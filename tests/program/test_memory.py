"""The plan of memory, played through: nothing is overwritten that is still read."""

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fanin.program.memory import plan_memory, view_of_arena
from fanin.program.passes import PASSES
from fanin.program.trace import trace

pytestmark = pytest.mark.usefixtures("by_torch_alone")

aten = torch.ops.aten


def planned(function, static, inputs):
    traced = trace(function, static, inputs)
    for simplify in PASSES:
        simplify(traced.graph)
    return traced.graph, plan_memory(traced.graph)


def origins(node):
    """(operation, which of its results) that made the memory a node's value lies in; worked out apart from the code."""
    if node.op != "call_function":
        return {(node, 0)}
    schema = getattr(node.target, "_schema", None)
    if schema is None:  # getitem
        of = origins(node.args[0])
        source = node.args[0].target._schema.returns[0]
        return of if source.alias_info is not None else {(node.args[0], node.args[1])}
    if any(result.alias_info is not None for result in schema.returns):  # a view, or a change in place
        return origins(node.args[next(i for i, one in enumerate(schema.arguments) if one.alias_info is not None)])
    if node.target == aten._unsafe_view.default:
        return origins(node.args[0])
    value = node.meta["val"]
    return {(node, place) for place in range(len(value) if isinstance(value, (tuple, list)) else 1)}


def extent(value):
    return value.element_size() * (1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True)))


def check(graph, plan):
    """Play the plan: every byte belongs to the last result written there, and must still do so at each read."""
    owner = {}  # byte -> (operation, which result)
    regions = {}
    for node in graph.nodes:
        reads = [origin for source in node.all_input_nodes for origin in origins(source)]
        for origin in reads:
            for byte in regions.get(origin, ()):
                assert owner[byte] == origin, f"{node} reads {origin}, which {owner[byte]} has overwritten"
        if node in plan.planned:
            values = node.meta["val"]
            values = values if isinstance(values, (tuple, list)) else [values]
            written = []
            for place, value in enumerate(values):
                offset = plan.offset[(node, place)]
                region = range(offset, offset + extent(value))
                assert region.stop <= plan.size
                assert offset % value.element_size() == 0
                for origin in reads:
                    if set(regions.get(origin, ())) & set(region):  # it overwrites what it reads
                        source = next(one for one in node.all_input_nodes if origin in origins(one))
                        assert torch.Tag.pointwise in node.target.tags, (
                            f"{node} is not pointwise, but overwrites {source}"
                        )
                        for source in node.all_input_nodes:
                            if origin in origins(source):
                                given = source.meta["val"]
                                if given.numel() == value.numel() == 1:
                                    continue
                                assert (given.shape, given.stride(), given.dtype) == (
                                    value.shape,
                                    value.stride(),
                                    value.dtype,
                                )
                                assert given.storage_offset() == 0
                assert not any(set(region) & set(other) for other in written)
                written.append(region)
                regions[(node, place)] = region
                owner.update(dict.fromkeys(region, (node, place)))


@settings(
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_nothing_alive_is_overwritten(seed, straight):
    function = straight(seed, lines=16)
    check(*planned(function, function.static(), function.inputs()))


def layers(depth):
    def function(*given):
        *weights, x = given
        for w in weights:
            x = torch.tanh(x @ w)
        return [x.sum()]

    return function, [torch.ones(8, 8) for _ in range(depth)], [torch.ones(16, 8)]


def test_memory_is_used_again():
    size = 16 * 8 * 4
    for depth in (3, 10):
        graph, plan = planned(*layers(depth))
        check(graph, plan)
        assert plan.size <= 2 * size + 64  # what is read and what is written
        assert sum(plan.nbytes.values()) >= 2 * depth * size


def test_what_backward_needs_is_kept():
    def function(*given):
        *weights, x = given
        with torch.enable_grad():
            own = [w.detach().requires_grad_() for w in weights]
            for w in own:
                x = torch.tanh(x @ w)
            return [*torch.autograd.grad(x.sum(), own)]

    _, weights, inputs = layers(6)
    graph, plan = planned(function, weights, inputs)
    check(graph, plan)
    assert 6 * 16 * 8 * 4 <= plan.size < sum(plan.nbytes.values())


def test_pointwise_operations_overwrite_what_they_read_last():
    graph, plan = planned(
        lambda x, w: [torch.tanh(torch.sigmoid(x @ w)).sum()], [], [torch.ones(4, 4), torch.ones(4, 4)]
    )
    product, one, two = list(graph.nodes)[2:5]
    assert plan.offset[(product, 0)] == plan.offset[(one, 0)] == plan.offset[(two, 0)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: (lambda y: [(y + y.t()).sum()])(x @ w),
        lambda x, w: (lambda y: [(y * y[0]).sum()])(x @ w),
        lambda x, w: (lambda y: [(y * y[:, :1]).sum()])(x @ w),
        lambda x, w: (lambda y: [torch.where(y > 0, y, y.t()).sum()])(x @ w),
        lambda x, w: (lambda y: [torch.addcmul(y, y.t(), y).sum()])(x @ w),
        lambda x, w: (lambda y: [(y.view(16) + y.t().reshape(16)).sum()])(x @ w),
    ],
)
def test_not_where_the_same_memory_is_read_in_two_ways(function):
    check(*planned(function, [], [torch.randn(4, 4), torch.randn(4, 4)]))


def test_places_are_aligned_and_small_results_have_room():
    graph, plan = planned(
        lambda x: [(x + 1).sum(0).sum() + (x.double() * 2).sum() + (x > 0).any()], [], [torch.ones(3, 5)]
    )
    check(graph, plan)
    assert all(offset % 64 == 0 for offset in plan.offset.values())


def test_a_view_of_the_arena_has_the_layout_asked_for():
    arena = torch.zeros(256, dtype=torch.uint8)
    like = torch.empty(3, 2, dtype=torch.float64).t()
    view = view_of_arena(arena, 64, like)
    assert (view.shape, view.stride(), view.dtype) == (like.shape, like.stride(), like.dtype)
    view.fill_(1)
    assert int(arena[:64].sum()) == int(arena[64 + 48 :].sum()) == 0
    assert view.data_ptr() == arena.data_ptr() + 64


def test_an_empty_graph_needs_nothing():
    assert planned(lambda x: [x, None], [], [torch.ones(3)])[1].size == 0
