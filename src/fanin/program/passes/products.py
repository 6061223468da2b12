"""Large float32 products by oneDNN, on processors where MKL is the slower of the two.

Measured on AMD's (2 cores, AVX-512): x @ W takes 0.83 to 0.9 of MKL's time from about 50 million FLOPs on; below, and
for products whose first factor is transposed, MKL is as fast or faster. On Intel's both are alike, and MKL stays.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import Changes, aten
from fanin.program.matmul import ADDMM_RELU, PRODUCTS, multiplications
from fanin.program.passes.rewrite import declare

_LEAST_FLOPS = 5e7


def use_onednn(graph: fx.Graph) -> None:
    """addmm(b, x, W), with relu or without, and mm(x, W) -> one operation of oneDNN, where that is faster."""
    if not prefers_onednn():
        return
    changes = Changes(graph)
    for node in list(graph.nodes):
        if node.target not in PRODUCTS or node.kwargs or changes.ever(node) or not _is_large(node):
            continue
        given: Any = node.args
        bias, (x, kernel) = (given[0] if len(given) == 3 else None), given[-2:]
        if bias is not None and not _is_row(bias.meta["val"], kernel.meta["val"].shape[1]):
            continue
        with graph.inserting_before(node):
            turned = graph.call_function(aten.t.default, (kernel,))
            result = product = graph.call_function(_linear_pointwise(), (x, turned, bias, "none", [], ""))
            if node.target == ADDMM_RELU:  # apart: oneDNN's relu makes 0 of NaN
                result = graph.call_function(aten.relu.default, (product,))
        declare(turned, kernel.meta["val"].t())
        declare(product, node.meta["val"])
        declare(result, node.meta["val"])
        node.replace_all_uses_with(result)
        graph.erase_node(node)


@functools.cache
def prefers_onednn() -> bool:
    """Whether this processor is AMD's, and torch has the operation."""
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in processor and _linear_pointwise() is not None


def _linear_pointwise() -> Any:
    packet = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return None if packet is None else packet.default


def _is_row(bias: Tensor, units: int) -> bool:
    """Whether a bias has one number for each unit, without gaps: oneDNN reads it as such, and checks nothing."""
    return bias.shape == (units,) and bias.is_contiguous()


def _is_large(node: fx.Node) -> bool:
    factor: Any = node.args[-2]
    x = factor.meta["val"]
    is_large = 2 * multiplications(node) >= _LEAST_FLOPS
    return is_large and x.dtype == torch.float32 and x.device.type == "cpu" and bool(x.is_contiguous())
