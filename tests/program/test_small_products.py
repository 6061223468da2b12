"""Small products by numpy: the same numbers within what float32 promises, on the same memory, and no side effects."""

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fanin.program import Program

FORMS = {
    "mm": lambda b, x, w: torch.mm(x, w),
    "addmm": lambda b, x, w: torch.addmm(b, x, w),
    "relu": lambda b, x, w: torch.relu(torch.addmm(b, x, w)),
}


def program_of(function, static, x):
    """A program whose intermediate results, not only its last one, are products."""
    return Program(lambda *given: [function(*given).square()], static, [x])


def matrix(rows, columns, turned):
    return torch.randn(columns, rows).t() if turned else torch.randn(rows, columns)


@settings(derandomize=True, deadline=None, max_examples=60, phases=[Phase.generate])
@given(st.sampled_from([*FORMS]), st.tuples(*[st.integers(1, 40)] * 3), st.booleans(), st.booleans(), st.integers(0, 9))
def test_products_are_right(form, sizes, x_turned, w_turned, seed):
    torch.manual_seed(seed)
    rows, inputs, units = sizes
    x, w, b = matrix(rows, inputs, x_turned), matrix(inputs, units, w_turned), torch.randn(units)
    program = program_of(lambda b, w, x: FORMS[form](b, x, w), [b, w], x)
    assert "dot(" in program.source
    for _ in range(2):
        found = program(x)[0]
        exact = FORMS[form](b.double(), x.double(), w.double()).square()
        bound = (inputs + 2) * 2.0**-24 * (x.abs().double() @ w.abs().double() + b.abs().double())
        assert ((found.double() - exact).abs() <= 4 * exact.sqrt() * bound + bound**2 + 1e-7 * exact).all()
        with torch.no_grad():
            w.mul_(-0.5)  # read where it lies


LEFT = {  # form, sizes, and what makes of the factors something else
    "large": ("mm", (64, 128, 65), lambda b, x, w: (b, x, w)),
    "float64": ("addmm", (4, 5, 6), lambda b, x, w: (b.double(), x.double(), w.double())),
    "gaps": ("mm", (4, 5, 6), lambda b, x, w: (b, torch.randn(8, 10)[::2, ::2], w)),
    "bias of one number": ("addmm", (4, 5, 6), lambda b, x, w: (b[:1], x, w)),
    "bias for each row": ("addmm", (4, 5, 6), lambda b, x, w: (torch.randn(4, 6), x, w)),
    "no rows": ("addmm", (0, 5, 6), lambda b, x, w: (b, x, w)),
}


@pytest.mark.parametrize("case", LEFT)
def test_others_stay_with_torch(case):
    form, (rows, inputs, units), change = LEFT[case]
    b, x, w = change(torch.randn(units), torch.randn(rows, inputs), torch.randn(inputs, units))
    program = program_of(lambda b, w, x: FORMS[form](b, x, w), [b, w], x)
    assert "dot(" not in program.source
    torch.testing.assert_close(program(x)[0], FORMS[form](b, x, w).square())


def test_scaled_products_stay_with_torch():
    b, x, w = torch.randn(3), torch.randn(2, 4), torch.randn(4, 3)
    program = program_of(lambda b, w, x: torch.addmm(b, x, w, beta=2, alpha=0.5), [b, w], x)
    assert "dot(" not in program.source


def test_what_is_not_finite_comes_through_without_a_warning():
    b, w = torch.zeros(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[float("inf"), 0.0], [float("nan"), 1.0], [3e38, 3e38], [1.0, -1.0]])
    program = program_of(lambda b, w, x: torch.relu(torch.addmm(b, x, w)) + 0, [b, w], x)
    before = np.geterr()
    torch.testing.assert_close(program(x)[0], torch.relu(x @ w).square(), equal_nan=True)
    assert np.geterr() == before


def test_warnings_are_back_after_an_error():
    table, w = torch.randn(3, 4), torch.randn(4, 2)
    program = Program(lambda w, t, i: [torch.nn.functional.embedding(i, t) @ w * 2], [w, table], [torch.tensor([0, 1])])
    before = np.geterr()
    with pytest.raises(IndexError):
        program(torch.tensor([0, 7]))
    assert np.geterr() == before


def test_torchs_functions_of_the_same_names():
    x, w = torch.randn(3, 3), torch.randn(3, 3)

    def function(w, x):
        y = torch.maximum(x, w) * torch.dot(x[0], w[0])
        return [torch.relu(torch.addmm(w[0].clone(), y, w)) + torch.maximum(y, x) + torch.add(y, 1)]

    torch.testing.assert_close(Program(function, [w], [x])(x)[0], function(w, x)[0])


def test_inputs_that_want_gradients():
    x, w = torch.randn(2, 3, requires_grad=True), torch.randn(3, 4)
    torch.testing.assert_close(program_of(lambda w, x: x @ w, [w], x)(x)[0], (x @ w).square().detach())
