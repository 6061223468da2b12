"""The graph of a function: what it holds, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fanin.program.trace import trace

aten = torch.ops.aten


def operations(traced):
    return [node.target for node in traced.graph.nodes if node.op == "call_function"]


def test_static_tensors_and_inputs_are_told_apart():
    w, b, x = torch.randn(3, 2), torch.randn(2), torch.randn(4, 3)
    traced = trace(lambda w, b, x: [x @ w + b, None, x], [w, b], [x])
    assert [traced.static[node] for node in list(traced.graph.nodes)[:2]] == [w, b]
    assert next(iter(traced.static.values())) is w
    assert [node.meta["val"].shape for node in traced.inputs] == [(4, 3)]
    assert operations(traced) == [aten.mm.default, aten.add.Tensor]
    first, second, third = traced.outputs
    assert (first.meta["val"].shape, second, third) == ((4, 2), None, traced.inputs[0])


def test_nothing_is_run_for_real():
    w, x = torch.zeros(3), torch.ones(3)
    seed = torch.get_rng_state()
    traced = trace(lambda w, x: [w.add_(x), x.mul_(0), torch.randn(3)], [w], [x])
    assert (w.tolist(), x.tolist()) == ([0, 0, 0], [1, 1, 1])
    assert torch.equal(torch.get_rng_state(), seed)
    assert operations(traced)[:2] == [aten.add_.Tensor, aten.mul_.Tensor]


def test_tensors_from_elsewhere_are_static():
    elsewhere = torch.tensor([1.0, 2.0])
    weight = nn.Parameter(torch.ones(2))
    traced = trace(lambda x: [x * elsewhere + weight.detach()], [], [torch.ones(2)])
    assert any(tensor is elsewhere for tensor in traced.static.values())
    assert any(tensor.data_ptr() == weight.data_ptr() for tensor in traced.static.values())


def test_gradients_become_operations():
    w, x = nn.Parameter(torch.randn(3, 2)), torch.randn(4, 3)

    def function(w, x):
        return [torch.autograd.grad(torch.relu(x @ w).sum(), w)[0]]

    traced = trace(function, [w], [x])
    assert aten.threshold_backward.default in operations(traced)
    assert traced.outputs[0].meta["val"].shape == (3, 2)
    assert w.grad is None


def test_shapes_are_fixed_and_may_decide():
    traced = trace(lambda x: [x * x.shape[0] if x.shape[0] > 2 else x.sum()], [], [torch.ones(3)])
    assert operations(traced) == [aten.mul.Tensor]


def numpy_inside(x):
    return [torch.from_numpy(x.detach().numpy() + 1)]


def by_item(x):
    return [x * x.sum().item()]


def by_float(x):
    return [x * float(x.sum())]


def by_branch(x):
    return [x + 1 if x.sum() > 0 else x - 1]


def by_list(x):
    return [x * x.tolist()[0]]


def by_places(x):
    return [x[x > 0]]


def by_nonzero(x):
    return [x.nonzero()]


def by_loop(x):
    while x.max() < 10:
        x = x * 2
    return [x]


def by_all_close(x):
    return [x if torch.allclose(x, x) else x + 1]


@pytest.mark.parametrize(
    "function", [numpy_inside, by_item, by_float, by_branch, by_list, by_places, by_nonzero, by_loop, by_all_close]
)
def test_what_depends_on_values_is_refused(function):
    with pytest.raises(Exception):  # noqa: B017 - whatever torch says
        trace(function, [], [torch.ones(3)])


def test_what_the_function_raises_comes_through():
    class Own(Exception):
        pass

    def function(x):
        raise Own("mine")

    with pytest.raises(Own, match="mine"):
        trace(function, [], [torch.ones(3)])
    with pytest.raises(RuntimeError, match="dim"):
        trace(lambda x: [x @ torch.ones(7, 2)], [], [torch.ones(4, 3)])
    assert (torch.ones(3) + 1).tolist() == [2, 2, 2]  # no mode is left behind


def test_modes_of_the_caller_do_not_matter():
    x = torch.ones(3)
    for mode in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with mode:
            traced = trace(lambda x: [x + 1], [], [x])
        assert operations(traced) == [aten.add.Tensor]


def test_values_that_share_memory_are_known_by_their_storage():
    traced = trace(lambda x: (lambda v: [v, x.add_(1), x.clone()])(x.t()), [], [torch.ones(2, 3)])
    x, view, changed, copy = [
        node.meta["val"].untyped_storage()._cdata for node in traced.graph.nodes if node.op != "output"
    ]
    assert x == view == changed
    assert copy != x


def test_random_operations_are_in_the_graph():
    traced = trace(lambda x: [F.dropout(x, 0.5), torch.rand(2)], [], [torch.ones(3)])
    names = " ".join(map(str, operations(traced)))
    assert "rand" in names
    assert "dropout" in names or "bernoulli" in names


def test_the_same_tensor_may_be_both_static_and_from_elsewhere():
    w = torch.ones(3)
    traced = trace(lambda given: [given + w], [w], [])
    assert len({tensor.data_ptr() for tensor in traced.static.values()}) == 1
