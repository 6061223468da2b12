"""Products of a weight that the step changes: every thread keeps to the rows of the weight that it updates.

An update gives each of k threads one k-th of a weight's memory. A product that divides its work in another way makes
the cores fetch from each other what the other wrote, in every step. Here the same rows stay with the same thread:
one `bmm` of k products, each with the rows of one k-th, R / k of the weight's R rows::

    x @ W        ->  sum over i of x[:, rows_i] @ W[rows_i]
    x @ W.t()    ->  [x @ W[rows_0].t(), x @ W[rows_1].t(), ...]
    a.t() @ b    ->  [a.t()[rows_0] @ b, a.t()[rows_1] @ b, ...]      a gradient in the form of W

Measured on two cores of an AMD EPYC, in microseconds for two products, gradient and Adam's update of one weight,
before and after: (32, 512) @ (512, 512) 463 and 371, (64, 256) @ (256, 256) 209 and 181, (128, 512) @ (512, 512) 1,311
and 1,298. Where the cores share no cache it is more: 356 and 137 for (32, 784) @ (784, 128).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import Changes, aten, changed, draws
from fanin.program.matmul import multiplications
from fanin.program.passes.rewrite import added, declare_new, replace
from fanin.program.passes.small_products import LARGEST as LARGEST_BY_NUMPY

# Numbers in a weight: a small one is fetched in less time than it is divided, a large one does not stay in the caches.
_LEAST, _MOST = 1 << 14, 1 << 19
_LEAST_WIDTH = 16  # rows and columns
_MOST_PARTS = 8  # threads; more have not been measured, and the sums of parts grow with them
_WORTH = 2  # rows of a part of the weight for each row of the batch, at least: the sums cost less than they save


def split_products(graph: fx.Graph) -> None:
    """mm and addmm of float32 with such a weight, or of such a gradient -> bmm, where batches are small."""
    parts = threads()
    if not 2 <= parts <= _MOST_PARTS or not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return
    changes = Changes(graph)
    weights = {node for node in graph.nodes if node.op == "placeholder" and changes.ever(node) and _is_weight(node)}
    shapes = {node.meta["val"].shape for node in weights}
    for node in list(graph.nodes):
        if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs or _is_small(node):
            continue
        *bias, x, kernel = node.args
        if any(one.meta["val"].shape != node.meta["val"].shape[1:] for one in bias):
            continue
        turned: Any = kernel.args[0] if kernel.target == aten.t.default else None
        with graph.inserting_before(node):
            if kernel in weights and _is_worth_it(parts, kernel, x):
                replace(node, _sum_of_parts(graph, parts, x, kernel, *bias))
            elif turned in weights and _is_worth_it(parts, turned, x):
                _write_rows(graph, node, _side_by_side(graph, parts, x, turned), *bias)
            elif not bias and node.meta["val"].shape in shapes and _is_worth_it(parts, node, kernel):
                replace(node, _rows_of_gradient(graph, parts, x, kernel))


def threads() -> int:
    """Threads that work on one operation."""
    return torch.get_num_threads()


def _is_weight(node: fx.Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.device.type != "cpu":
        return False
    return value.dim() == 2 and value.is_contiguous()


def _is_small(node: fx.Node) -> bool:
    return multiplications(node) <= LARGEST_BY_NUMPY


def _is_worth_it(parts: int, weight: fx.Node, batch: fx.Node) -> bool:
    """Whether the rows of a weight, or of its gradient, can be divided, and the batch has few rows beside them."""
    rows, batch_rows = weight.meta["val"].shape[0], batch.meta["val"].shape[0]
    size = weight.meta["val"].shape
    suits = _LEAST <= size.numel() <= _MOST and min(size) >= _LEAST_WIDTH
    return bool(suits and rows % parts == 0 and rows >= _WORTH * parts * batch_rows)


def _sum_of_parts(graph: fx.Graph, parts: int, x: fx.Node, weight: fx.Node, bias: Any = None) -> fx.Node:
    batch, inner = x.meta["val"].shape
    columns = added(graph, aten.view.default, x, [batch, parts, inner // parts])
    columns = added(graph, aten.transpose.int, columns, 0, 1)
    product = added(graph, aten.bmm.default, columns, _in_parts(graph, parts, weight))
    if parts == 2:
        halves = [added(graph, aten.select.int, product, 0, place) for place in range(2)]
        total = added(graph, aten.add.Tensor, *halves)
    else:
        total = added(graph, aten.sum.dim_IntList, product, [0])
    return total if bias is None else added(graph, aten.add.Tensor, total, bias)


def _side_by_side(graph: fx.Graph, parts: int, x: fx.Node, weight: fx.Node) -> fx.Node:
    """(B, k, U / k): the products of the parts beside each other, though in memory they lie one after the other."""
    turned = added(graph, aten.transpose.int, _in_parts(graph, parts, weight), 1, 2)
    product = added(graph, aten.bmm.default, _for_each_part(graph, parts, x), turned)
    return added(graph, aten.transpose.int, product, 0, 1)


def _write_rows(graph: fx.Graph, node: fx.Node, beside: fx.Node, bias: Any = None) -> None:
    """Put rows (B, U) in the place of `node`: by adding the bias, by its only reader if it is pointwise, or copied."""
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    if bias is not None:
        replace(node, _pointwise(graph, aten.add.Tensor, (beside, bias), beside))
    elif reader is not None and _is_pointwise(reader, node):
        with graph.inserting_before(reader):
            given = fx.map_arg(reader.args, lambda one: beside if one is node else one)
            replace(reader, _pointwise(graph, reader.target, given, beside))
        graph.erase_node(node)
    else:
        replace(node, _pointwise(graph, aten.clone.default, (beside,), beside))


def _pointwise(graph: fx.Graph, target: Any, args: Any, beside: fx.Node) -> fx.Node:
    """An operation on parts that lie side by side and on values in rows, as rows."""
    batch, parts, size = shape = beside.meta["val"].shape
    views: dict[fx.Node, fx.Node] = {beside: beside}
    for one in args:
        if isinstance(one, fx.Node) and one not in views:
            views[one] = added(graph, aten.view.default, one, [*one.meta["val"].shape[:-1], parts, size])
    result = added(graph, target, *fx.map_arg(args, views.__getitem__))
    declare_new(result, shape, beside.meta["val"])
    return added(graph, aten.view.default, result, [batch, parts * size])


def _is_pointwise(reader: fx.Node, node: fx.Node) -> bool:
    """Whether every number of a reader's result depends on the same number of its inputs, which are all in rows."""
    if torch.Tag.pointwise not in getattr(reader.target, "tags", ()) or reader.kwargs:
        return False
    if draws(reader) or changed(reader):
        return False
    first = node.meta["val"]
    values = [one.meta["val"] for one in (reader, *reader.all_input_nodes)]
    return all(
        isinstance(one, Tensor) and one.shape == first.shape and one.dtype == first.dtype and one.is_contiguous()
        for one in values
    )


def _rows_of_gradient(graph: fx.Graph, parts: int, left: fx.Node, right: fx.Node) -> fx.Node:
    product = added(graph, aten.bmm.default, _in_parts(graph, parts, left), _for_each_part(graph, parts, right))
    return added(graph, aten.view.default, product, [left.meta["val"].shape[0], right.meta["val"].shape[1]])


def _in_parts(graph: fx.Graph, parts: int, matrix: fx.Node) -> fx.Node:
    rows, columns = matrix.meta["val"].shape
    return added(graph, aten.view.default, matrix, [parts, rows // parts, columns])


def _for_each_part(graph: fx.Graph, parts: int, matrix: fx.Node) -> fx.Node:
    several = added(graph, aten.unsqueeze.default, matrix, 0)
    return added(graph, aten.expand.default, several, [parts, *matrix.meta["val"].shape])
