"""The limit of a case."""

from __future__ import annotations

import pytest

from benchmarks import cases, limits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("steps", [0, 4])
def test_a_limit_is_the_longer_of_products_and_bytes(dtype: str, steps: int) -> None:
    case = cases.Case("c", "", (24, 16, 8), 4, (), dtype, steps=steps)
    one = limits.limit(case, seconds=1e-4)
    parts = case.flops() / one["gflops"] / 1e3, case.bytes() / one["gbytes"] / 1e3
    assert one["us"] == pytest.approx(max(parts))
    assert 0 < parts[0] <= one["products_us"] * (1 + 1e-9)  # all at the best rate is no slower than each at its own
