"""Small float32 products by numpy's BLAS, which computes them in one thread.

MKL wakes its threads for them. Measured on two cores of an AMD EPYC, in microseconds, MKL and numpy: (32, 128) @
(128, 10) 7.8 and 1.6, (32, 64) @ (64, 64) 4.9 and 2.8, (32, 128) @ (128, 64) 6.9 and 5.1. From a million on,
numpy uses threads of its own, and two pools of threads that wait for the same cores can take milliseconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.matmul import PRODUCTS, multiplications

LARGEST = 2**18  # multiplications


def mark_small_products(graph: fx.Graph) -> None:
    """Mark, as `meta["by_numpy"]`, the products that numpy may compute: its arrays lie where the tensors lie."""
    for node in graph.nodes:
        if node.target not in PRODUCTS or node.kwargs:
            continue
        *bias, x, kernel = (one.meta["val"] for one in node.args)
        value = node.meta["val"]
        node.meta["by_numpy"] = (
            0 < multiplications(node) <= LARGEST
            and value.is_contiguous()
            and all(one.dtype == torch.float32 and one.device.type == "cpu" for one in (x, kernel, value, *bias))
            and all(map(_is_whole, (x, kernel)))
            and all(one.shape == (kernel.shape[1],) for one in bias)
        )


def _is_whole(matrix: Any) -> bool:
    """Whether a matrix or its transpose has no gaps, so that BLAS takes it as it is."""
    assert isinstance(matrix, Tensor)
    return matrix.is_contiguous() or matrix.t().is_contiguous()
