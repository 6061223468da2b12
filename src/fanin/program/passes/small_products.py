"""Small float32 products by numpy's BLAS, which computes them in one thread.

MKL starts its threads even for these. Measured on two cores of an AMD EPYC, in microseconds, MKL and numpy: (32, 128) @
(128, 10) 7.8 and 1.6, (32, 64) @ (64, 64) 4.9 and 2.8, (32, 128) @ (128, 64) 6.9 and 5.1. For larger ones, numpy uses
threads of its own, and two thread pools that compete for the same cores can take milliseconds. Products with few
columns, at which MKL is slow, are computed in pieces of rows that are small enough: (128, 512) @ (512, 10) 71 and 22.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.matmul import PRODUCTS, multiplications

LARGEST = 2**18  # multiplications
_FEW, _LARGEST_OF_FEW = range(2, 16), 2_000_000  # columns, and multiplications of products that go in pieces


def mark_small_products(graph: fx.Graph) -> None:
    """Set `meta["by_numpy"]`: whether numpy may compute a product, in arrays on the memory of the tensors."""
    for node in graph.nodes:
        if node.target not in PRODUCTS or node.kwargs:
            continue
        *bias, x, kernel = (one.meta["val"] for one in node.args)
        value = node.meta["val"]
        node.meta["by_numpy"] = (
            0 < multiplications(node) <= _largest(x, kernel)
            and value.is_contiguous()
            and all(one.dtype == torch.float32 and one.device.type == "cpu" for one in (x, kernel, value, *bias))
            and all(map(_is_whole, (x, kernel)))
            and all(one.shape == (kernel.shape[1],) for one in bias)
        )


def pieces(node: fx.Node) -> list[slice]:
    """The rows of each piece of a marked product."""
    rows = node.meta["val"].shape[0]
    size = -(-rows // -(-multiplications(node) // LARGEST))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _largest(x: Tensor, kernel: Tensor) -> int:
    """The most multiplications for numpy; only a contiguous x can be cut into pieces of rows."""
    return _LARGEST_OF_FEW if kernel.shape[1] in _FEW and x.is_contiguous() else LARGEST


def _is_whole(matrix: Any) -> bool:
    """Whether a matrix or its transpose is contiguous, so that BLAS takes it without a copy."""
    assert isinstance(matrix, Tensor)
    return matrix.is_contiguous() or matrix.t().is_contiguous()
