"""Large float32 products by oneDNN, on processors where MKL is the slower of the two.

Measured on AMD's (2 cores, AVX-512): x @ W takes 0.83 to 0.9 of MKL's time from about 50 million FLOPs on; below, and
for products whose first factor is transposed, MKL is as fast or faster. On Intel's both are alike, and MKL stays.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import fx

from fanin.program.effects import aten
from fanin.program.matmul import ADDMM_RELU, PRODUCTS, multiplications
from fanin.program.passes.rewrite import add_call, declare_new, replace

_LEAST_FLOPS = 5e7


def use_onednn(graph: fx.Graph) -> None:
    """addmm(b, x, W), with relu or without, and mm(x, W) -> one operation of oneDNN, where that is faster."""
    if not prefers_onednn():
        return
    for node in list(graph.nodes):
        if node.target in PRODUCTS and not node.kwargs and _is_large(node) and onednn_supports(node):
            *bias, x, kernel = node.args
            with graph.inserting_before(node):
                result = add_onednn_product(graph, node.target, x, kernel, *bias)
            replace(node, result)


def onednn_supports(node: fx.Node) -> bool:
    """Whether a product has a contiguous float32 result on the CPU, and a bias that oneDNN reads as torch does."""
    value = node.meta["val"]
    if value.dtype != torch.float32 or value.device.type != "cpu" or not value.is_contiguous():
        return False
    return is_row(node.args[0] if len(node.args) == 3 else None, value.shape[1])


def is_row(bias: Any, units: int) -> bool:
    """Whether a bias is None or contiguous of shape (units,): oneDNN assumes so without a check."""
    return bias is None or (bias.meta["val"].shape == (units,) and bias.meta["val"].is_contiguous())


def add_onednn_product(graph: fx.Graph, target: Any, x: fx.Node, kernel: fx.Node, bias: Any = None) -> fx.Node:
    """Add x @ kernel + bias, with relu where `target` has it."""
    return add_linear(graph, target, x, add_call(graph, aten.t.default, kernel), bias)


def add_linear(graph: fx.Graph, target: Any, x: fx.Node, weight: fx.Node, bias: Any) -> fx.Node:
    """Add x @ t(weight) + bias, with relu where `target` has it; the weight may be packed."""
    result = graph.call_function(linear_pointwise(), (x, weight, bias, "none", [], ""))
    declare_new(result, [x.meta["val"].shape[0], weight.meta["val"].shape[0]], x.meta["val"])
    # not oneDNN's own relu, which turns NaN into 0
    return add_call(graph, aten.relu_.default, result) if target == ADDMM_RELU else result


@functools.cache
def prefers_onednn() -> bool:
    """Whether this processor is AMD's, and torch has the operation."""
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in processor and linear_pointwise() is not None


def linear_pointwise() -> Any:
    """oneDNN's x @ t(W) + b; private to torch, None where it has none."""
    packet = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return None if packet is None else packet.default


def _is_large(node: fx.Node) -> bool:
    factor: Any = node.args[-2]
    x = factor.meta["val"]
    is_large = 2 * multiplications(node) >= _LEAST_FLOPS
    return is_large and x.dtype == torch.float32 and x.device.type == "cpu" and bool(x.is_contiguous())
