"""Grouped products and lookups: the numbers, whatever the layout, and their gradients."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from fanin.kernels import grouped
from fanin.kernels.grouped import grouped_lookup, grouped_mm, grouped_outer

EASY = settings(derandomize=True, deadline=None, max_examples=60, phases=[Phase.generate])
SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=5)


def ends(sizes):
    return torch.tensor(sizes).cumsum(0).to(torch.int32)


def one_by_one(rows, matrices, sizes):
    """The definition, in float64, one row at a time."""
    which = [place for place, size in enumerate(sizes) for _ in range(size)]
    found = [row.double() @ matrices[place].double() for row, place in zip(rows, which, strict=True)]
    return torch.stack(found) if found else rows.new_zeros(0, matrices.shape[2]).double()


def laid_out(tensor, layout):
    """The same values: as they are, transposed in memory, from an odd address, or between other columns."""
    if layout == "turned":
        return tensor.mT.contiguous().mT
    if layout == "odd":
        memory = tensor.new_zeros(tensor.numel() + 1)
        return memory[1:].view(tensor.shape).copy_(tensor)
    if layout == "between":
        return tensor.new_zeros(*tensor.shape[:-1], tensor.shape[-1] + 3)[..., 1:-2].copy_(tensor)
    return tensor


LAYOUTS = st.sampled_from(["plain", "turned", "odd", "between"])
# One product in float32 of at most 9 terms of size about 1, against float64.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-5, torch.bfloat16: 0.1, torch.float16: 1e-2}


@EASY
@given(
    sizes=SIZES,
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    layouts=st.tuples(LAYOUTS, LAYOUTS),
    dtype=st.sampled_from(list(TOLERANCE)),
)
def test_products_of_groups(sizes, shape, layouts, dtype):
    inner, outer = shape
    rows = laid_out(torch.randn(sum(sizes), inner).to(dtype), layouts[0])
    matrices = laid_out(torch.randn(len(sizes), inner, outer).to(dtype), layouts[1])
    found = grouped_mm(rows, matrices, ends(sizes))
    assert found.dtype == dtype
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), one_by_one(rows, matrices, sizes), rtol=0, atol=TOLERANCE[dtype])

    others = laid_out(torch.randn(sum(sizes), outer).to(dtype), layouts[1])
    found = grouped_outer(rows, others, ends(sizes))
    expected = torch.stack(
        [a.double().t() @ b.double() for a, b in zip(rows.split(sizes), others.split(sizes), strict=True)]
    )
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("sizes", [[2, 0, 3], [0, 0], [1]])
def test_gradients_once_and_twice(sizes):
    rows = torch.randn(sum(sizes), 3, dtype=torch.float64, requires_grad=True)
    others = torch.randn(sum(sizes), 4, dtype=torch.float64, requires_grad=True)
    matrices = torch.randn(len(sizes), 3, 4, dtype=torch.float64, requires_grad=True)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda a, b: grouped_mm(a, b, ends(sizes)), (rows, matrices))
        assert check(lambda a, b: grouped_outer(a, b, ends(sizes)), (rows, others))


def test_a_gradient_without_strides():
    rows, matrices = torch.randn(4, 8, requires_grad=True), torch.randn(2, 8, 4, requires_grad=True)
    grouped_mm(rows, matrices, ends([1, 3])).sum().backward()
    torch.testing.assert_close(rows.grad, matrices.detach().sum(2)[[0, 1, 1, 1]])
    expected = torch.stack([rows.detach()[:1].sum(0), rows.detach()[1:].sum(0)])
    torch.testing.assert_close(matrices.grad, expected[:, :, None].expand(2, 8, 4))


@EASY
@given(sizes=SIZES, dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_the_fallback_computes_the_same(sizes, dtype):
    rows, matrices = torch.randn(sum(sizes), 6).to(dtype), torch.randn(len(sizes), 6, 5).to(dtype)
    others = torch.randn(sum(sizes), 5).to(dtype)
    fast = grouped_mm(rows, matrices, ends(sizes)), grouped_outer(rows, others, ends(sizes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped, "_DEVICES", ())
        slow = grouped_mm(rows, matrices, ends(sizes)), grouped_outer(rows, others, ends(sizes))
    for one, other in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=torch.finfo(dtype).eps * 4, atol=torch.finfo(dtype).eps * 40)


@EASY
@given(sizes=SIZES, ranks=st.lists(st.integers(1, 4), min_size=5, max_size=5), deep=st.booleans())
def test_lookups(sizes, ranks, deep):
    tables = [torch.randn(7, rank, dtype=torch.float64, requires_grad=True) for rank in ranks[: len(sizes)]]
    indices = torch.randint(7, (sum(sizes), 2) if deep else (sum(sizes),))
    found = grouped_lookup(tables, indices, ends(sizes))
    which = [place for place, size in enumerate(sizes) for _ in range(size)]
    width = max(table.shape[1] for table in tables)
    assert found.shape == (*indices.shape, width)
    expected = torch.zeros_like(found) + 0 * tables[0].sum()  # belongs to a graph also without rows
    for row, place in enumerate(which):
        expected[row, ..., : tables[place].shape[1]] = tables[place][indices[row]]
    assert torch.equal(found, expected)
    weights = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), tables),
        torch.autograd.grad((expected * weights).sum(), tables, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_tracers_see_the_operations():
    offsets = ends([2, 0, 1])
    rows, matrices = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5, 2, requires_grad=True)
    tables = [torch.randn(7, rank, requires_grad=True) for rank in (2, 1, 3)]
    indices = torch.randint(7, (3, 4))
    torch.library.opcheck(grouped_mm, (rows, matrices, offsets))
    torch.library.opcheck(grouped_outer, (rows, torch.randn(3, 2, requires_grad=True), offsets))
    torch.library.opcheck(grouped_lookup, (tables, indices, offsets))
    for dtype in (torch.float32, torch.float64):
        given = rows.detach().to(dtype), matrices.detach().to(dtype), offsets
        with FakeTensorMode() as mode:
            found = grouped_mm(*(mode.from_tensor(each) for each in given))
            assert (found.shape, found.dtype) == ((3, 2), dtype)


def test_an_index_out_of_range():
    with pytest.raises(IndexError):
        grouped_lookup([torch.zeros(2, 1)], torch.tensor([2]), ends([1]))
