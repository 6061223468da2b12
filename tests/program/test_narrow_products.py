"""Products with few columns: in whatever form, the same numbers within float32's theory."""

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fanin.program import Program
from fanin.program.passes import narrow_products, small_products

LINEAR = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)
needs_onednn = pytest.mark.skipif(LINEAR is None, reason="this torch has no oneDNN")
FEW = st.integers(2, 15)
RANDOM = settings(
    derandomize=True, deadline=None, phases=[Phase.generate], max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture
def always(monkeypatch):
    """On every processor, and for products of any size."""
    monkeypatch.setattr(narrow_products, "prefers_onednn", lambda: True)
    monkeypatch.setattr(narrow_products, "_LEAST", 0)
    monkeypatch.setattr(narrow_products, "_MANY_COLUMNS", 16)


# Of a matrix x (B, I), a kernel w (I, U) and a gradient dy (B, U) with U small_products.
FORMS = {
    "x @ W": lambda b, w, x, dy: x @ w,
    "x @ W + b": lambda b, w, x, dy: torch.addmm(b, x, w),
    "relu(x @ W + b)": lambda b, w, x, dy: torch.relu(torch.addmm(b, x, w)),
    "dy @ W.t()": lambda b, w, x, dy: dy @ w.t(),
    "x.t() @ dy": lambda b, w, x, dy: x.t() @ dy,
    "dy.t() @ x": lambda b, w, x, dy: dy.t() @ x,
}


def check(form, program, given, inner):
    """|found - exact| <= g |x| |W| with n roundings, in whatever order; the result is new memory in rows."""
    found, exact = program(*given[2:])[0], FORMS[form](*(one.double() for one in given))
    bound = FORMS[form](*(one.double().abs() for one in given))
    n, unit = inner + 2, 2.0**-24
    assert ((found.double() - exact).abs() <= n * unit / (1 - n * unit) * bound).all()
    assert found.is_contiguous()
    assert found.dtype == torch.float32


@needs_onednn
@RANDOM
@given(form=st.sampled_from([*FORMS]), batch=st.integers(20, 90), inputs=st.integers(20, 200), units=FEW)
def test_products_are_right(form, batch, inputs, units, always, monkeypatch):
    monkeypatch.setattr(narrow_products, "_LEAST", 1)
    given = [torch.randn(shape) for shape in ((units,), (inputs, units), (batch, inputs), (batch, units))]
    program = Program(lambda *tensors: [FORMS[form](*tensors)], given[:2], given[2:])
    assert [node.target for node in program.traced.graph.nodes].count(LINEAR) == 1
    for _ in range(2):
        check(form, program, given, max(batch, inputs))


def test_a_gradient_of_many_more_columns_is_turned_where_it_is_large(always, monkeypatch):
    for columns, least, expected in ((64, 0, 1), (65, 0, 0), (64, 1 << 40, 0)):
        monkeypatch.setattr(narrow_products, "_LARGE", least)
        x, dy = torch.randn(100, 80), torch.randn(100, columns)
        program = Program(lambda x, dy: [x.t() @ dy], [], [x, dy])
        assert [node.target for node in program.traced.graph.nodes].count(LINEAR) == (expected if LINEAR else 0)
        torch.testing.assert_close(program(x, dy)[0], x.t() @ dy, rtol=1e-5, atol=1e-4)


LEFT = {  # products that stay as they are
    "one column": lambda x: x @ torch.ones(80, 1),
    "many columns": lambda x: x @ torch.ones(80, 16),
    "float64": lambda x: x.double() @ torch.ones(80, 4, dtype=torch.float64),
    "every other column": lambda x: x[:, ::2] @ torch.ones(40, 4),
    "scaled": lambda x: torch.addmm(torch.ones(4), x, torch.ones(80, 4), beta=0.5),
    "a bias for each row": lambda x: torch.addmm(torch.ones(50, 4), x, torch.ones(80, 4)),
}


@pytest.mark.parametrize("case", LEFT)
def test_others_stay_as_they_are(case, always):
    x = torch.randn(50, 80)
    program = Program(lambda x: [LEFT[case](x)], [], [x])
    assert LINEAR not in [node.target for node in program.traced.graph.nodes]
    torch.testing.assert_close(program(x)[0], LEFT[case](x))


def test_small_ones_and_other_processors(monkeypatch):
    x, w = torch.randn(64, 100), torch.randn(100, 10)
    monkeypatch.setattr(narrow_products, "prefers_onednn", lambda: True)
    assert "_linear_pointwise" not in Program(lambda w, x: [x @ w], [w], [x]).source
    monkeypatch.setattr(narrow_products, "prefers_onednn", lambda: False)
    monkeypatch.setattr(narrow_products, "_LEAST", 0)
    assert "_linear_pointwise" not in Program(lambda w, x: [x @ w], [w], [x]).source


@RANDOM
@given(form=st.sampled_from(["x @ W", "x @ W + b", "relu(x @ W + b)"]), batch=st.integers(64, 300), units=FEW)
def test_pieces_of_rows_by_numpy(form, batch, units):
    inputs = max(512, 2**18 // (batch * units) + 1)
    given = [torch.randn(shape) for shape in ((units,), (inputs, units), (batch, inputs), (batch, units))]
    if batch * inputs * units > small_products._LARGEST_OF_FEW:
        return
    program = Program(lambda *tensors: [FORMS[form](*tensors).neg_()], given[:2], given[2:])
    lines = [line for line in program.source.splitlines() if "dot(" in line]
    assert len(lines) >= 2
    assert f":{batch}]" in lines[-1]
    for _ in range(2):
        torch.testing.assert_close(program(*given[2:])[0], -FORMS[form](*given), rtol=1e-4, atol=1e-3)


@needs_onednn
@pytest.mark.parametrize("form", FORMS)
def test_whatever_the_default_dtype_is(form, always, monkeypatch):
    given = [torch.randn(shape) for shape in ((10,), (64, 10), (40, 64), (40, 10))]
    torch.set_default_dtype(torch.float64)
    try:
        program = Program(lambda *tensors: [FORMS[form](*tensors)], given[:2], given[2:])
    finally:
        torch.set_default_dtype(torch.float32)
    assert "_linear_pointwise" in program.source
    check(form, program, given, 64)
