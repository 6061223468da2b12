"""Products in parts, for each thread its rows of a weight: the same numbers within what float32 promises."""

import contextlib

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import fanin
from fanin.program import Program
from fanin.program.passes import partitioned_products

pytestmark = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="products are only split for MKL")


@contextlib.contextmanager
def threads(number):
    """As on a machine where so many threads work on one operation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitioned_products, "threads", lambda: number)
        yield


# What is computed of a weight (R, C), a matrix a (B, R) and a matrix c (B, C), with a bias for the columns of each.
FORMS = {
    "x @ W": lambda w, a, c, of_r, of_c: a @ w,
    "x @ W + b": lambda w, a, c, of_r, of_c: torch.addmm(of_c, a, w),
    "relu(x @ W + b)": lambda w, a, c, of_r, of_c: torch.relu(torch.addmm(of_c, a, w)),
    "x @ W.t()": lambda w, a, c, of_r, of_c: c @ w.t(),
    "x @ W.t() + b": lambda w, a, c, of_r, of_c: torch.addmm(of_r, c, w.t()),
    "relu(x @ W.t())": lambda w, a, c, of_r, of_c: torch.relu(c @ w.t()),
    "x @ W.t() times x": lambda w, a, c, of_r, of_c: (c @ w.t()) * a,
    "x @ W.t(), read twice": lambda w, a, c, of_r, of_c: (lambda y: torch.softmax(y, -1) + y)(c @ w.t()),
    "a.t() @ b": lambda w, a, c, of_r, of_c: a.t() @ c,
    "a.t() @ b from what is turned": lambda w, a, c, of_r, of_c: a.t() @ c.t().contiguous().t(),
}


def updated(form):
    """The form's value; then the weight changes, as in a training step."""

    def function(w, *given):
        found = FORMS[form](w, *given)
        w.mul_(0.5)
        return [found]

    return function


def given_of(rows, columns, batch, dtype=torch.float32):
    shapes = (rows, columns), (batch, rows), (batch, columns), (rows,), (columns,)
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


@settings(derandomize=True, deadline=None, max_examples=60, phases=[Phase.generate])
@given(
    st.sampled_from([*FORMS]), st.integers(2, 5), st.integers(1, 5), st.integers(0, 60), st.integers(1, 300),
    st.integers(0, 9),
)  # fmt: skip
def test_parts_are_right(form, parts, batch, more, columns, seed):
    torch.manual_seed(seed)
    rows = parts * (2 * batch + more + 8)
    columns = max(columns, 16, 2**18 // (rows * batch) + 1, -(-(2**14) // rows))
    w, *others = given_of(rows, columns, batch)
    with threads(parts):
        program = Program(updated(form), [w], others)
    assert "bmm(" in program.source
    for _ in range(2):
        exact = FORMS[form](w.double(), *(one.double() for one in others))
        size = FORMS["x @ W + b" if "@ W" in form and ".t()" not in form else "x @ W.t() + b"]
        bound = size(w.abs().double(), *(one.abs().double() for one in others))
        if form.startswith("a.t()"):
            bound = others[0].abs().double().t() @ others[1].abs().double()
        if form.endswith("times x"):
            bound = bound * others[0].abs().double()
        if form.endswith("twice"):
            bound = bound + 2 * bound.amax(-1, keepdim=True) + 1
        before = w.clone()
        found = program(*others)[0]
        assert torch.equal(w, before * 0.5)
        assert found.is_contiguous()
        assert found.shape == exact.shape
        inner = batch if form.startswith("a.t()") else max(rows, columns)
        assert ((found.double() - exact).abs() <= (inner + 8) * 2.0**-24 * bound).all()


def test_what_is_read_once_by_a_pointwise_operation_is_not_copied():
    w, *others = given_of(512, 64, 16)
    with threads(2):
        program = Program(updated("x @ W.t() times x"), [w], others)
    assert "bmm(" in program.source
    assert "copy_(t" not in program.source


LEFT = {  # rows, columns, batch, threads, dtype
    "one thread": (512, 64, 16, 1, torch.float32),
    "many threads": (576, 64, 16, 9, torch.float32),
    "a batch as large as the weight": (512, 64, 512, 2, torch.float32),
    "rows that cannot be divided": (513, 64, 16, 2, torch.float32),
    "few numbers": (64, 64, 8, 2, torch.float32),
    "a small weight": (1024, 10, 64, 2, torch.float32),
    "a large weight": (1024, 513, 64, 2, torch.float32),
    "float64": (512, 64, 16, 2, torch.float64),
}


@pytest.mark.parametrize("case", LEFT)
@pytest.mark.parametrize("form", FORMS)
def test_others_stay_whole(form, case):
    rows, columns, batch, number, dtype = LEFT[case]
    w, *others = given_of(rows, columns, batch, dtype)
    with threads(number):
        program = Program(updated(form), [w], others)
    assert "bmm(" not in program.source
    torch.testing.assert_close(program(*others)[0], FORMS[form](w / 0.5, *others), rtol=1e-4, atol=1e-3)


def test_a_weight_that_stays_as_it_is_is_not_split():
    w, *others = given_of(512, 64, 16)
    with threads(2):
        program = Program(lambda w, *given: [FORMS["x @ W"](w, *given)], [w], others)
    assert "bmm(" not in program.source


@pytest.mark.parametrize("bias", [(1, 64), (16, 64), (1,), (16, 1)])
def test_other_biases_stay_with_the_product(bias):
    w, a, b = torch.randn(512, 64), torch.randn(16, 512), torch.randn(bias)

    def function(w, a, b):
        found = torch.addmm(b, a, w)
        w.mul_(0.5)
        return [found]

    with threads(2):
        program = Program(function, [w], [a, b])
    assert "bmm(" not in program.source
    torch.testing.assert_close(program(a, b)[0], torch.addmm(b, a, w / 0.5))


@pytest.mark.parametrize("number", [2, 4])
def test_training_in_parts_follows_training_as_it_was(number):
    """Layers of both forms, on sizes that divide and not: no further from float64 than twice the eager loop."""

    def made(dtype):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(96, 256), nn.ReLU(), fanin.layers.Dense(512, "relu"), nn.Linear(512, 256), nn.GELU(),
            nn.Linear(256, 258), nn.Tanh(), nn.Linear(258, 3),
        )  # fmt: skip
        net(torch.zeros(1, 96))
        return net.to(dtype)

    torch.manual_seed(1)
    x, y = torch.randn(24, 96), torch.randint(0, 3, (24,))

    def trained(net, step=None, dtype=torch.float32):
        optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
        if step is not None:
            step = step(net, nn.functional.cross_entropy, optimizer)
        for _ in range(12):
            if step is not None:
                step(x, y)
                continue
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x.to(dtype)), y).backward()
            optimizer.step()
        return torch.cat([w.detach().double().flatten() for w in net.parameters()]), step

    exact, _ = trained(made(torch.float64), dtype=torch.float64)
    eager, _ = trained(made(torch.float32))
    with threads(number):
        split_up, step = trained(made(torch.float32), fanin.compile_step)
    assert step.programs[0].source.count("bmm(") >= 4
    floor = 2.0**-24 * exact.abs().max()
    assert (split_up - exact).abs().max() <= 2 * (eager - exact).abs().max() + floor


@pytest.mark.parametrize("form", FORMS)
def test_whatever_the_default_dtype_is(form):
    w, *others = given_of(512, 64, 16)
    torch.set_default_dtype(torch.float64)
    try:
        with threads(2):
            program = Program(updated(form), [w], others)
    finally:
        torch.set_default_dtype(torch.float32)
    assert "bmm(" in program.source
    found = program(*others)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, FORMS[form](w / 0.5, *others), rtol=1e-4, atol=1e-3)
