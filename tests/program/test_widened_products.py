"""Small products of halves in float32: nearer to the exact result than without the pass, and nothing else changes."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fanin.program.run
from fanin.program import Program
from fanin.program.passes import PASSES
from fanin.program.passes.widened_products import widen_small_products
from fanin.program.trace import trace
from fanin.program.verify import verify

aten = torch.ops.aten
UPDATES_BY_NAME = tuple(one for one in PASSES if one is not widen_small_products)
HALVES = (torch.bfloat16, torch.float16)


def step(dtype):
    """A training step with master weights in float32, as layers of a mixed policy make it."""

    def function(w, b, v, x):
        w, b, v = (one.detach().requires_grad_() for one in (w, b, v))
        with torch.enable_grad():
            hidden = torch.relu(torch.addmm(b.to(dtype), x.to(dtype), w.to(dtype)))
            loss = (hidden @ v.to(dtype)).float().square().mean()
        return [loss.detach(), *(2 * gradient for gradient in torch.autograd.grad(loss, [w, b, v]))]

    return function


def arguments(rows=6, inputs=5, units=4, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(inputs, units), torch.randn(units), torch.randn(units, 3)], torch.randn(rows, inputs)


@settings(derandomize=True, deadline=None, max_examples=30, phases=[Phase.generate])
@given(st.sampled_from(HALVES), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.integers(0, 9))
def test_no_further_from_float64_than_twice_the_halves(dtype, rows, inputs, units, seed):
    static, x = arguments(rows, inputs, units, seed)
    exact = step(torch.float64)(*(one.double() for one in static), x.double())
    found = Program(step(dtype), static, [x])(x)
    eager = step(dtype)(*static, x)
    for one, two, three in zip(found, eager, exact, strict=True):
        size = float(three.abs().max()) + 1e-6
        away, eagers = (float((each.double() - three).abs().max()) for each in (one, two))
        assert away <= 2 * eagers + 4 * torch.finfo(dtype).eps * size


def test_products_take_the_weights_themselves():
    static, x = arguments()
    program = Program(step(torch.bfloat16), static, [x])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanin.program.run, "PASSES", UPDATES_BY_NAME)
        plain = Program(step(torch.bfloat16), static, [x])
    assert plain.stats()[-1][1].operations > program.stats()[-1][1].operations  # casts of weights and gradients
    assert "bfloat16 (5, 4)" in plain.source  # the kernel, and its gradient
    assert "bfloat16 (5, 4)" not in program.source


def targets(function, static, x):
    traced = trace(function, static, [x])
    widen_small_products(traced.graph)
    verify(traced, "widen_small_products")
    return [(node.target, node.meta["val"].dtype) for node in traced.graph.nodes if node.op == "call_function"]


LEFT = {
    "large": (lambda w, x: [x.bfloat16() @ w.bfloat16()], (1024, 1024), (2, 1024)),
    "float32": (lambda w, x: [x @ w], (4, 3), (2, 4)),
    "scaled": (lambda w, x: [torch.addmm(w[0].bfloat16(), x.bfloat16(), w.bfloat16(), alpha=2)], (4, 3), (2, 4)),
    "no rows": (lambda w, x: [x.bfloat16() @ w.bfloat16()], (4, 3), (0, 4)),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_is_left_alone(case):
    function, weight, rows = LEFT[case]
    static, x = [torch.randn(weight)], torch.randn(rows)
    traced = trace(function, static, [x])
    before = [(n.target, n.meta["val"].dtype) for n in traced.graph.nodes if n.op == "call_function"]
    assert targets(function, static, x) == before


def test_a_weight_that_changes_after_its_cast_is_read_from_the_cast():
    def function(w, x):
        half = w.bfloat16()
        w.mul_(2)
        return [x.bfloat16() @ half]

    w, x = torch.randn(4, 3), torch.randn(2, 4)
    program = Program(function, [w.clone()], [x])
    torch.testing.assert_close(program(x)[0], x.bfloat16() @ w.bfloat16(), rtol=0.02, atol=0.02)
    torch.testing.assert_close(program(x)[0], 2 * (x.bfloat16() @ w.bfloat16()), rtol=0.02, atol=0.02)


def test_halves_that_were_never_float32_are_cast_once():
    def function(w, x):
        half = torch.tanh(x.bfloat16())
        return [half @ w.bfloat16(), half @ (w + 1).bfloat16(), half.t() @ half]

    w, x = torch.randn(4, 3), torch.randn(2, 4)
    found = targets(function, [w], x)
    casts = [dtype for target, dtype in found if target == aten._to_copy.default]
    assert casts.count(torch.float32) == 1
    for one, two in zip(Program(function, [w], [x])(x), function(w, x), strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one, two, rtol=0.02, atol=0.02)
