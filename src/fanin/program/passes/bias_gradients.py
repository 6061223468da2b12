"""Bias gradients: a sum over rows becomes a product with a row of ones, which is faster."""

from __future__ import annotations

import torch
from torch import fx

from fanin.program.effects import aten
from fanin.program.passes.rewrite import add_call, add_filled, replace

_MOST_NUMBERS = 1 << 16  # for more, both are bound by memory, and a pairwise sum is more accurate


def sum_rows_by_product(graph: fx.Graph) -> None:
    """sum(x, [0], keepdim) -> ones (1, B) @ x, for small matrices x (B, U) of float32 or float64 on the CPU."""
    for node in list(graph.nodes):
        if node.target != aten.sum.dim_IntList or node.kwargs or tuple(node.args[1]) != (0,):
            continue
        matrix = node.args[0].meta["val"]
        value = node.meta["val"]
        if matrix.dim() != 2 or value.dim() != 2 or matrix.dtype not in (torch.float32, torch.float64):
            continue
        if matrix.numel() > _MOST_NUMBERS or not matrix.is_contiguous() or matrix.device.type != "cpu":
            continue
        with graph.inserting_before(node):
            ones = add_filled(graph, [1, matrix.shape[0]], 1.0, matrix)
            ones.meta["constant"] = True
            replace(node, add_call(graph, aten.mm.default, ones, node.args[0]))
