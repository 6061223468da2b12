"""numpy: the products themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Case, weights


def predict(case: Case) -> Callable[[Any], Any]:
    """x @ kernel + bias, and the larger of that and 0 between the layers."""
    *hidden, (last, end) = weights(case)

    def run(rows: Any) -> Any:
        for kernel, bias in hidden:
            rows = rows @ kernel
            rows += bias
            np.maximum(rows, 0, out=rows)
        return rows @ last + end

    return run
