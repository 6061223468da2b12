"""Products with few columns, such as those of the last layer, in the fastest form.

Measured on two cores of an AMD EPYC, in microseconds, for (1024, 2048) @ (2048, 10), a layer of 10 units: 1,474 by MKL,
321 by oneDNN; for the gradient of its kernel, t(x) @ dy: 3,682, and as t(t(dy) @ x) by oneDNN 440. Wide products run at
about 200 GFLOP/s in MKL, these at 10 to 30.
"""

from __future__ import annotations

from torch import fx

from fanin.program.effects import aten
from fanin.program.matmul import PRODUCTS, multiplications
from fanin.program.passes.onednn_products import add_onednn_product, onednn_supports, prefers_onednn
from fanin.program.passes.rewrite import add_call, declare_new, replace

_LEAST = 2_000_000  # multiplications; below, oneDNN's overhead is too large
_FEW = range(2, 16)  # columns; MKL is fast for one
_LARGE, _FEW_OF_LARGE = 25_000_000, range(2, 65)  # from so many multiplications on, more columns count as few
_MANY_COLUMNS = 512


def rearrange_narrow_products(graph: fx.Graph) -> None:
    """float32 products with few rows, columns or summands -> oneDNN's, transposed where x is transposed."""
    if not prefers_onednn():
        return
    for node in list(graph.nodes):
        if node.target not in PRODUCTS or node.kwargs or multiplications(node) < _LEAST:
            continue
        if not onednn_supports(node):
            continue
        *bias, x, kernel = node.args
        (rows, inner), columns = x.meta["val"].shape, kernel.meta["val"].shape[1]
        with graph.inserting_before(node):
            if x.meta["val"].is_contiguous():
                if columns in _FEW or (inner in _FEW and columns >= _MANY_COLUMNS):
                    replace(node, add_onednn_product(graph, node.target, x, kernel, *bias))
            elif bias or not x.meta["val"].t().is_contiguous():
                continue
            elif columns in (_FEW_OF_LARGE if multiplications(node) >= _LARGE else _FEW):
                replace(node, _transposed_product(graph, node, x, kernel))
            elif rows in _FEW:
                replace(node, add_onednn_product(graph, node.target, x, kernel))


def _transposed_product(graph: fx.Graph, node: fx.Node, x: fx.Node, kernel: fx.Node) -> fx.Node:
    """t(t(kernel) @ t(x)), which is x @ kernel."""
    left, right = add_call(graph, aten.t.default, kernel), add_call(graph, aten.t.default, x)
    product = add_onednn_product(graph, node.target, left, right)
    result = graph.call_function(aten.clone.default, (add_call(graph, aten.t.default, product),))
    declare_new(result, node.meta["val"].shape, node.meta["val"])
    return result
