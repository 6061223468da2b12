"""Programs against the functions they were made from, on random functions and on cases that go wrong easily."""

import functools
import gc
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fanin.program.run
from fanin.program import Program
from fanin.program.count import count
from fanin.program.passes import PASSES, ROUNDING
from fanin.program.trace import Traced

pytestmark = pytest.mark.usefixtures("by_torch_alone")

EXACT = tuple(one for one in PASSES if one not in ROUNDING)
FEW = settings(
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def agrees(function, is_same):
    """Two runs of the program do to results, static tensors and inputs what two calls of the function do."""
    static, twins = function.static(), function.static()
    program = Program(function, static, function.inputs())
    for seed in (None, 1):
        inputs, plain = function.inputs(seed), function.inputs(seed)
        expected = [None if one is None else one.clone() for one in function(*twins, *plain)]
        found = program(*inputs)
        assert len(found) == len(expected)
        for kind, pairs in (
            ("result", zip(found, expected, strict=True)),
            ("static tensor", zip(static, twins, strict=True)),
            ("input", zip(inputs, plain, strict=True)),
        ):
            for place, (one, two) in enumerate(pairs):
                assert is_same(one, two), f"seed {function.seed}: {kind} {place}: {one} != {two}\n{program}"


@FEW
@given(seed=st.integers(0, 2**32))
def test_random_functions_give_the_same_bits(seed, straight, is_same):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanin.program.run, "PASSES", EXACT)
        agrees(straight(seed), is_same)


@pytest.mark.slow
@settings(FEW, max_examples=5000)
@given(seed=st.integers(0, 2**32), lines=st.integers(1, 40))
def test_many_random_functions_give_the_same_bits(seed, lines, straight, is_same):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanin.program.run, "PASSES", EXACT)
        agrees(straight(seed, lines), is_same)


CASES = {
    "copy before a change": lambda w, x: (lambda y: (x.add_(1), y)[1:])(x.clone()),
    "view after a change": lambda w, x: (lambda v: (x.add_(1), v + 0)[1:])(x[0]),
    "plus its own transpose": lambda w, x: (lambda y: [y + y.t()])(x @ x),
    "times its own row": lambda w, x: (lambda y: [y * y[0]])(x @ x),
    "times its own column": lambda w, x: (lambda y: [y * y[:, :1]])(x @ x),
    "plus its own flip by strides": lambda w, x: (lambda y: [torch.where(y > 0, y, y.t())])(x @ x),
    "sum of two views": lambda w, x: (lambda y: [y[1:] + y[:-1]])(torch.relu(x @ w)),
    "twice the same result": lambda w, x: (lambda y: [y, y, y])(x @ w),
    "an input": lambda w, x: [x, x.t(), w],
    "a constant": lambda w, x: [torch.ones(2), torch.arange(3), torch.tensor([1.0, float("nan")])],
    "a constant that changes": lambda w, x: (lambda c: [c.add_(x[0]), c])(torch.zeros(3)),
    "memory filled by hand": lambda w, x: (lambda c: (c.copy_(x), c.mul_(2), c)[2:])(torch.empty(3, 3)),
    "memory filled in parts": lambda w, x: (lambda c: (c[0].copy_(x[0]), c[1:].fill_(2), c)[2:])(torch.empty(3, 3)),
    "a result that changes later": lambda w, x: (lambda y: [y * 1, y.add_(1), y])(x @ w),
    "a static tensor before and after": lambda w, x: (lambda a: [a, (w.mul_(2), w.clone())[1]])(w.clone()),
    "parts of a split, changed": lambda w, x: (lambda p: (p[0].add_(1), x.sum(), p[1] * 2)[1:])(x.split([1, 2])),
    "parts of parts": lambda w, x: [b for a in (x @ w).unbind() for b in a.split([1, 2])],
    "sorted": lambda w, x: [*(x @ w).sort(), *(x @ w).topk(2)],
    "unread second result": lambda w, x: [x.max(0)[0] + 1, x.max(0)[1] + 1],
    "relu of a product that is read twice": lambda w, x: (lambda y: [torch.relu(y), y])(torch.addmm(x[0], x, w)),
    "relu of a product, changed": lambda w, x: (lambda y: [torch.relu(y).add_(1), w])(torch.addmm(x[0], x, w)),
    "inf and nan as numbers": lambda w, x: [
        x.clamp(max=float("inf")),
        torch.where(x > 0, x, float("nan")),
        x.masked_fill(x > 0, float("-inf")),
        x + float("inf"),
    ],
    "large and negative numbers": lambda w, x: [x * -1e30, x.long() + (1 << 40), x / -3, x**-1],
    "dtypes as arguments": lambda w, x: [
        x.to(torch.bfloat16),
        x.sum(dtype=torch.float64),
        torch.zeros(2, dtype=torch.int8),
    ],
    "strings as arguments": lambda w, x: [F.gelu(x, approximate="tanh"), torch.div(x, 0.3, rounding_mode="floor")],
    "no elements": lambda w, x: [x[:0] @ w, x[:0].sum(), torch.cat([x[:0], x])],
    "numbers": lambda w, x: [x.sum() * 2, x.mean() + 1, x[0, 0] - 1],
    "expanded": lambda w, x: [(x[:1] @ w).expand(3, 3) + 1, (x[:1] @ w).expand(3, 3)],
    "not contiguous": lambda w, x: [torch.relu(x.t()), (x @ w).t(), torch.relu((x @ w).t()), x.t().clone()],
    "lists of one": lambda w, x: [torch.cat([x]), torch.stack([x @ w])],
    "lists of changing tensors": lambda w, x: (
        torch._foreach_add_([w, x], 1.0),
        torch._foreach_mul_([w], [x]),
        torch._foreach_add([w, x], 1.0)[1],
        w + x,
    )[2:],
    "nothing": lambda w, x: [None],
    "a list with one tensor": lambda w, x: [
        torch._foreach_add([x * 2], 1.0)[0] + 1,
        torch._foreach_sqrt([x * x])[0].sum(),
    ],
    "a row times a matrix": lambda w, x: [(x[0] @ w) * 2, F.linear(x[1], w)[None]],
    "a copy of what it changes": lambda w, x: (x.mul_(x[:, :1].clone()), x * 1)[1:],
    "a chain in one place": lambda w, x: [torch.tanh(torch.sigmoid(torch.relu(torch.exp(x @ w) + 1) * 2))],
    "a diamond": lambda w, x: (lambda y: (lambda a, b: [a + b, a * b, y - a])(torch.relu(y), torch.tanh(y)))(x @ w),
    "an attribute": lambda w, x: [x * CAPTURED, CAPTURED.clone()],
    "norm": lambda w, x: [F.layer_norm(x @ w, (3,)), *torch.native_layer_norm(x, [3], None, None, 1e-5)],
    "a changed view of a changed view": lambda w, x: (lambda y: (y[0].add_(1), y.view(-1)[3:6].mul_(2), y * 1)[2:])(
        x @ w
    ),
    "copied onto itself": lambda w, x: (x.copy_(x.clone()), x.copy_(x.t().clone()), x * 1)[2:],
    "in a slice of its own result": lambda w, x: (lambda y: [y[0] + 1, y[1].exp(), torch.relu(y)])(torch.relu(x @ w)),
}
CAPTURED = torch.tensor([1.0, 2.0, 3.0])


class Case:
    """A named case, in the form that `agrees` takes."""

    def __init__(self, name):
        self.seed, self.function = name, CASES[name]
        generator = torch.Generator().manual_seed(3)
        self.tensors = [torch.randn(3, 3, generator=generator) for _ in range(2)]

    def __call__(self, *given):
        with torch.no_grad():
            return list(self.function(*given))

    def static(self):
        return [self.tensors[0].clone()]

    def inputs(self, seed=None):
        return [self.tensors[1].clone() * (1 if seed is None else -2)]


@pytest.mark.parametrize("name", CASES)
def test_what_goes_wrong_easily(name, is_same):
    agrees(Case(name), is_same)


def step(w, b, x):
    return [torch.softmax(torch.relu(x @ w + b), -1), (x @ w).sum(0)]


def arguments(rows=4):
    return torch.randn(3, 5), torch.randn(5), torch.randn(rows, 3)


def test_gradients_can_be_part_of_a_program(is_same):
    w, b, x = arguments()

    def function(w, b, x):
        w, b = w.detach().requires_grad_(), b.detach().requires_grad_()
        with torch.enable_grad():
            loss = torch.nn.functional.mse_loss(torch.tanh(x @ w + b).log_softmax(-1), x @ w)
        return [loss.detach(), *torch.autograd.grad(loss, [w, b])]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanin.program.run, "PASSES", EXACT)
        found = Program(function, [w, b], [x])(x)
    for one, two in zip(found, function(w, b, x), strict=True):
        assert is_same(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bias_gradient_is_as_near_to_float64_as_a_sum(dtype):
    x = torch.randn(50, 7, dtype=dtype) + 3

    def function(x):
        return [x.sum(0, keepdim=True)]

    found, plain, exact = Program(function, [], [x])(x)[0], function(x)[0], x.double().sum(0, keepdim=True)
    bound = 50 * torch.finfo(dtype).eps * x.double().abs().sum(0, keepdim=True)  # n eps sum |x|
    assert ((found.double() - exact).abs() <= bound).all()
    assert ((plain.double() - exact).abs() <= bound).all()


def test_results_are_new_ordinary_tensors():
    w, b, x = arguments()
    program = Program(step, [w, b], [x])
    first = program(x)
    kept = [one.clone() for one in first]
    second = program(x + 1)
    for one, copy, other in zip(first, kept, second, strict=True):
        assert torch.equal(one, copy)
        assert one.data_ptr() != other.data_ptr()
        assert not one.is_inference()
        assert not one.requires_grad
        v = torch.ones_like(one, requires_grad=True)
        (one * v).sum().backward()  # a result can be kept for backward
        assert torch.equal(v.grad, one)
        one.add_(1)


def test_results_that_are_inputs_are_copies():
    w, x = torch.randn(2), torch.randn(2)
    found = Program(lambda w, x: [w, x, x.view(1, 2)], [w], [x])(x)
    assert not {one.data_ptr() for one in found} & {w.data_ptr(), x.data_ptr()}
    assert len({one.data_ptr() for one in found}) == 3


def test_it_runs_for_tensors_that_take_part_in_autograd():
    w = torch.nn.Parameter(torch.randn(3, 3))
    x = torch.randn(2, 3, requires_grad=True)

    def function(w, x):
        with torch.no_grad():
            return [x @ w]

    found = Program(function, [w], [x])(x)[0]
    torch.testing.assert_close(found, (x @ w).detach())
    assert not found.requires_grad
    assert w.requires_grad
    assert w.grad is None
    assert not w.is_inference()


def test_static_tensors_changed_by_a_run_work_in_autograd_afterwards():
    w = torch.nn.Parameter(torch.ones(3))

    def function(w, x):
        with torch.no_grad():
            w.add_(x)
        return [None]

    program = Program(function, [w], [torch.ones(3)])
    assert program(torch.full((3,), 2.0)) == [None]
    assert w.tolist() == [3.0] * 3
    (w * w).sum().backward()
    assert w.grad.tolist() == [6.0] * 3


def test_static_tensors_that_are_changed_between_runs_are_seen():
    w, b, x = arguments()
    program = Program(step, [w, b], [x])
    w.mul_(2)
    b.data.fill_(3)
    torch.testing.assert_close(program(x), step(w, b, x), rtol=1e-6, atol=1e-6)


def test_inputs_may_have_other_strides_than_the_example():
    w, b, x = arguments()
    program = Program(step, [w, b], [x])
    turned = x.t().contiguous().t()
    torch.testing.assert_close(program(turned), step(w, b, x), rtol=1e-6, atol=1e-6)


def test_threads_take_turns():
    w, b, x = arguments(rows=8)
    program = Program(step, [w, b], [x])
    inputs = [torch.randn(8, 3) for _ in range(4)]
    expected = [program(one) for one in inputs]
    faults = []

    def work(place):
        for _ in range(50):
            found = program(inputs[place])
            if not all(torch.equal(one, two) for one, two in zip(found, expected[place], strict=True)):
                faults.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_a_run_that_fails_leaves_the_program_usable():
    table, places = torch.randn(3, 2), torch.tensor([0, 2])
    program = Program(lambda table, places: [F.embedding(places, table) * 2], [table], [places])
    with pytest.raises(IndexError):
        program(torch.tensor([0, 3]))
    assert torch.equal(program(places)[0], table[places] * 2)


def test_random_numbers_are_those_of_the_function_and_new_in_each_run():
    x = torch.ones(20)

    def function(x):
        a, b = torch.rand_like(x), torch.rand_like(x)
        return [a, b, F.dropout(x, 0.5), torch.randn(3), x.clone().bernoulli_(0.5)]

    program = Program(function, [], [x])
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = [function(x) for _ in range(2)]
        torch.manual_seed(seed)
        found = [program(x) for _ in range(2)]
        for one, two in zip(found, expected, strict=True):
            for a, b in zip(one, two, strict=True):
                assert torch.equal(a, b)
        assert not torch.equal(found[0][0], found[0][1])
        assert not torch.equal(found[0][0], found[1][0])


def test_own_generators_go_on_where_they_were():
    mine, twin = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)

    def function(generator):
        return lambda x: [torch.empty_like(x).normal_(0, 1, generator=generator) + x]

    x = torch.zeros(5)
    program = Program(function(mine), [], [x])
    for _ in range(3):
        assert torch.equal(program(x)[0], function(twin)(x)[0])


def test_making_a_program_runs_nothing_for_real():
    w = torch.zeros(3)
    state = torch.get_rng_state()
    Program(lambda w, x: [w.add_(torch.rand(3)), x.mul_(2)], [w], [x := torch.ones(3)])
    assert w.tolist() == [0, 0, 0]
    assert x.tolist() == [1, 1, 1]
    assert torch.equal(torch.get_rng_state(), state)


def test_it_can_be_read_and_says_what_it_costs():
    w, b, x = arguments()
    program = Program(step, [w, b], [x])
    assert "def run(x0, r0, r1):\n" in str(program)
    names = [name for name, _ in program.stats()]
    assert names == ["traced", *(one.__name__ for one in fanin.program.run.PASSES)]
    traced, final = program.stats()[0][1], program.stats()[-1][1]
    assert traced.flops == 2 * 2 * 4 * 3 * 5  # x @ w, twice
    assert final.flops < traced.flops
    assert final.operations < traced.operations
    assert final.peak > 0
    assert 0 < final.bytes < traced.bytes


def test_each_stage_is_counted_as_it_stands(straight, monkeypatch):
    """Passes that change nothing are not counted again."""
    expected = []

    def noted(one):
        @functools.wraps(one)
        def run(graph):
            one(graph)
            expected.append(count(Traced(graph, {}, [], [])))

        return run

    monkeypatch.setattr(fanin.program.run, "PASSES", [noted(one) for one in PASSES])
    w, b, x = arguments()
    makes = [lambda: Program(step, [w, b], [x])]
    for seed in range(30):
        function = straight(seed)
        makes.append(lambda one=function: Program(one, one.static(), one.inputs()))
    moves = set()
    for make in makes:
        expected.clear()
        (_, traced), *stages = make().stats()
        assert [cost for _, cost in stages] == expected
        before = [traced, *expected]
        moves |= {name for (name, after), cost in zip(stages, before, strict=False) if after != cost}
    assert len(moves) >= 5


def test_memory_of_a_dropped_program_is_free_at_once():
    gc.collect()
    gc.disable()
    try:
        program = Program(lambda x: [(x @ x).relu() @ x], (), [torch.ones(4, 4)])
        program(torch.ones(4, 4))
        arena = weakref.ref(program._arena)
        del program
        assert arena() is None
    finally:
        gc.enable()
