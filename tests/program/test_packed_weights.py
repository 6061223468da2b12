"""Packed weights: the same numbers within the theory of their dtype, taken over once, and only where it gains."""

import pytest
import torch
from torch import nn

import fanin
from fanin.program import Program
from fanin.program.passes import FOR_GOOD, UNTIL_PREPARED, packed_weights

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"), reason="this torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def amd(monkeypatch):
    monkeypatch.setattr(packed_weights, "prefers_onednn", lambda: True)


FORMS = {
    "mm": lambda w, b, x: x @ w,
    "addmm": lambda w, b, x: torch.addmm(b, x, w),
    "relu": lambda w, b, x: torch.relu(torch.addmm(b, x, w)),
}


def given_of(dtype, rows=8, inputs=512, units=512):
    torch.manual_seed(0)
    return torch.randn(inputs, units).to(dtype), torch.randn(units).to(dtype), torch.randn(rows, inputs).to(dtype)


def program_of(form, w, b, x, turned=False, further_passes=FOR_GOOD):
    if turned:
        return Program(
            lambda w, b, x: [FORMS[form](w.t(), b, x)], [w.t().contiguous(), b], [x], further_passes=further_passes
        )
    return Program(lambda w, b, x: [FORMS[form](w, b, x)], [w, b], [x], further_passes=further_passes)


@pytest.mark.parametrize("turned", [False, True], ids=["as (I, U)", "as (U, I)"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [3, 8, 200])
def test_numbers_stay(form, dtype, turned, rows):
    w, b, x = given_of(dtype, rows)
    program = program_of(form, w, b, x, turned)
    assert "pack(" in program.source or "pack_" in program.source
    exact = FORMS[form](w.double(), b.double(), x.double())
    size = x.double().abs() @ w.double().abs() + b.double().abs()
    rounded = torch.finfo(dtype).eps * exact.abs()  # of the result
    for _ in range(2):
        found = program(x)[0]
        assert found.dtype == dtype
        assert ((found.double() - exact).abs() <= (512 + 2) * 2.0**-24 * size + rounded).all()


def test_a_cast_is_prepared_and_packed():
    w, b, x = given_of(torch.float32)
    program = Program(
        lambda w, b, x: [torch.addmm(b.bfloat16(), x.bfloat16(), w.bfloat16())], [w, b], [x], further_passes=FOR_GOOD
    )
    assert "pack" in program.source
    torch.testing.assert_close(
        program(x)[0], torch.addmm(b.bfloat16(), x.bfloat16(), w.bfloat16()), rtol=2**-7, atol=0.1
    )


def test_nan_comes_through():
    w, b, x = given_of(torch.float32)
    x[1] = torch.nan
    program = program_of("relu", w, b, x)
    assert "pack" in program.source
    assert torch.equal(program(x)[0].isnan(), torch.relu(torch.addmm(b, x, w)).isnan())


LEFT = {  # what is given, and the passes
    "small": (given_of(torch.float32, 8, 100, 100), FOR_GOOD),
    "float64": (given_of(torch.float64), FOR_GOOD),
    "a weight that may change": (given_of(torch.float32), UNTIL_PREPARED),
}


@pytest.mark.parametrize("case", LEFT)
def test_others_stay_as_they_are(case):
    given, further_passes = LEFT[case]
    assert "pack" not in program_of("relu", *given, further_passes=further_passes).source


def test_float32_on_other_processors(monkeypatch):
    monkeypatch.setattr(packed_weights, "prefers_onednn", lambda: False)
    assert "pack" not in program_of("relu", *given_of(torch.float32)).source
    assert "pack" in program_of("relu", *given_of(torch.bfloat16)).source


def test_a_weight_that_the_program_changes_is_not_packed():
    w, b, x = given_of(torch.float32)

    def function(w, b, x):
        y = x @ w
        w.mul_(0.5)
        return [y]

    program = Program(function, [w, b], [x], further_passes=FOR_GOOD)
    assert "pack" not in program.source
    torch.testing.assert_close(program(x)[0], 2 * (x @ w), rtol=1e-4, atol=1e-4)


def test_a_snapshot_takes_over_new_weights_at_refresh():
    torch.manual_seed(0)
    net, x = nn.Linear(512, 512), torch.randn(8, 512)
    predict = fanin.compile_predict(net, x)
    assert "pack" in predict.programs[0].source
    before = predict(x)
    with torch.no_grad():
        net.weight.mul_(2)
        net.bias.mul_(2)
    assert torch.equal(predict(x), before)
    predict.refresh()
    torch.testing.assert_close(predict(x), 2 * before, rtol=1e-4, atol=1e-4)
