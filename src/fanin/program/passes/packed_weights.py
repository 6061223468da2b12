"""Weights packed once for many runs, in oneDNN's own blocked layout.

Measured on two cores of an AMD EPYC, in microseconds, plain and packed: bfloat16, one row @ (1024, 1024) 83 and
39, 32 rows 217 and 181; float32, 8 rows @ (1024, 1024) 269 and 106, 32 rows 603 and 332. Smaller weights gain nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import Mutations, aten, is_view
from fanin.program.matmul import PRODUCTS
from fanin.program.passes.onednn_products import add_linear, is_row, linear_pointwise, prefers_onednn
from fanin.program.passes.rewrite import declare, replace
from fanin.program.trace import Traced

_LEAST = {torch.bfloat16: 1 << 16, torch.float32: 1 << 18}  # numbers in a weight
_LEAST_MULTIPLICATIONS = 1 << 19  # below, numpy is faster


def pack_weights(traced: Traced) -> None:
    """x @ W -> oneDNN's product with a packed W, for weights that never change.

    In bfloat16 on every processor, in float32 where oneDNN is the faster for large products.
    """
    if linear_pointwise() is None or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return
    mutations = Mutations(traced.graph)
    for node in list(traced.graph.nodes):
        if node.op != "call_function" or node.kwargs:
            continue
        found = _factors(node)
        if found is None:
            continue
        x, kernel, bias = found
        if (
            mutations.is_mutated(kernel)
            or not _is_known_before_runs(kernel, traced)
            or not _is_worth_packing(x, kernel, bias)
        ):
            continue
        with traced.graph.inserting_before(node):
            packed = traced.graph.call_function(pack, (kernel, x.meta["val"].shape[0]))
            declare(packed, kernel.meta["val"].t())
            packed.meta["packed"] = True
            result = add_linear(traced.graph, node.target, x, packed, bias)
        replace(node, result)


def pack(kernel: Tensor, rows: int) -> Tensor:
    """A kernel (I, U) in the layout that oneDNN chooses for products with so many rows; only oneDNN can read it."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(kernel.t().contiguous(), rows)
    return packed


def _factors(node: fx.Node) -> tuple[fx.Node, fx.Node, Any] | None:
    """x, the kernel (I, U), and the bias or None, of a product; None for another operation."""
    if node.target in PRODUCTS:
        *bias, x, kernel = node.args
        return x, kernel, bias[0] if bias else None  # type: ignore[return-value]
    transposed: Any = node.args[1] if node.target == linear_pointwise() else None
    if transposed is None or transposed.target != aten.t.default or node.args[3] != "none":
        return None
    return node.args[0], transposed.args[0], node.args[2]  # type: ignore[return-value]


def _is_known_before_runs(kernel: fx.Node, traced: Traced) -> bool:
    """Whether a kernel, or what it is a view of, is known before the first run."""
    if is_view(kernel):
        return _is_known_before_runs(kernel.args[0], traced)  # type: ignore[arg-type]
    return kernel in traced.static or bool(kernel.meta.get("prepared"))


def _is_worth_packing(x: fx.Node, kernel: fx.Node, bias: Any) -> bool:
    value, weight = x.meta["val"], kernel.meta["val"]
    if value.dtype not in _LEAST or value.device.type != "cpu" or not value.is_contiguous():
        return False
    if value.dtype == torch.float32 and not prefers_onednn():
        return False
    is_large = value.shape[0] * weight.numel() > _LEAST_MULTIPLICATIONS and weight.numel() >= _LEAST[value.dtype]
    return bool(is_large and is_row(bias, weight.shape[1]))
