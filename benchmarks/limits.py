"""The machine's limits at the shapes of a case: the rates of its matrix products alone, and of copying.

The limit of a step or call is the longer of two times: the counted FLOPs at the best rate that any product of the case
reaches, and the counted bytes at the rate of a copy of that size. `python -m benchmarks.limits` prints them, product by
product.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.cases import CASES, MILLION, Case
from benchmarks.clock import Record, per_call

LARGEST = 1 << 29  # bytes of a buffer to copy; beyond any cache, a larger one takes no longer a byte


@torch.inference_mode()
def product(kind: str, rows: int, inner: int, columns: int, dtype: torch.dtype, seconds: float = 0.03) -> float:
    """Microseconds of (rows, inner) @ (inner, columns) into memory that is there, in the layout that suits it best."""
    return min(per_call(call, 5, seconds) for call in _layouts(kind, rows, inner, columns, dtype))


def _layouts(kind: str, rows: int, inner: int, columns: int, dtype: torch.dtype) -> Iterator[Callable[[], Any]]:
    left, right = torch.rand(rows, inner).to(dtype), torch.rand(inner, columns).to(dtype)
    result = torch.empty(rows, columns, dtype=dtype)
    for a in (left, left.t().contiguous().t()):
        for b in (right, right.t().contiguous().t()):
            yield lambda a=a, b=b: torch.mm(a, b, out=result)
    # Weights may be packed ahead, for oneDNN.
    if kind == "forward" and torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(right.t().contiguous(), rows)
        yield lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")


@torch.inference_mode()
def copy(size: int, seconds: float = 0.03) -> float:
    """Bytes a second that are read and written, where `size` bytes move in all."""
    source = torch.ones(max(4096, min(size, LARGEST) // 2), dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.numel() / (per_call(lambda: target.copy_(source), 5, seconds) / 1e6)


def limit(case: Case, seconds: float = 0.03) -> Record:
    """The limit of a case as if it were a peer: "us", and what it is made of."""
    dtype = getattr(torch, case.dtype)
    taken = {shape: product(*shape, dtype, seconds) for shape in set(case.products())}
    best = max(2 * rows * inner * columns / us for (_, rows, inner, columns), us in taken.items())  # FLOP a us
    moved = copy(case.bytes(), seconds)
    return {
        "us": max(case.flops() / best, case.bytes() / moved * 1e6),
        "gflops": best / 1e3,
        "gbytes": moved / 1e9,
        "products_us": sum(taken[shape] for shape in case.products()),
    }


def main(names: list[str]) -> None:
    """Print the rate of every product, for all cases or the named ones."""
    for name, case in CASES.items():
        if (names and name not in names) or case is MILLION:
            continue
        print(f"\n{case.title}: {case.flops() / 1e6:,.1f} MFLOP, {case.bytes() / 1e6:,.2f} MB")
        for kind, rows, inner, columns in case.products():
            taken = product(kind, rows, inner, columns, getattr(torch, case.dtype))
            rate = 2 * rows * inner * columns / taken / 1e3
            print(f"  {kind:18}{rows:>6} x {inner:>4} x {columns:>4} {taken:12,.1f} us {rate:10,.0f} GFLOP/s")
        rate = copy(case.bytes())
        print(f"  {'copy':37}{case.bytes() / rate * 1e6:12,.1f} us {rate / 1e9:10,.1f} GB/s")


if __name__ == "__main__":
    main(sys.argv[1:])
