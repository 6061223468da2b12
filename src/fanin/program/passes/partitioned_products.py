"""Products with a weight that the step updates, partitioned so that each thread reads the rows that it updates.

An update gives each of k threads one k-th of a weight's memory. If a product divides its work in another way, each core
has to fetch from the others' caches what they wrote, in every step. Here a product becomes one `bmm` of k products,
each with the k-th of the weight's R rows, R / k of them, that its thread updates::

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

from fanin.program.effects import Mutations, aten, draws_random, mutated_inputs
from fanin.program.matmul import multiplications
from fanin.program.passes.rewrite import add_call, declare_new, replace
from fanin.program.passes.small_products import LARGEST as LARGEST_BY_NUMPY

# Numbers in a weight: for fewer, partitioning costs more than it saves; more do not stay in the caches.
_LEAST, _MOST = 1 << 14, 1 << 19
_LEAST_WIDTH = 16  # rows and columns
_MOST_PARTS = 8  # threads; more were not measured, and the sums of parts grow with them
_LEAST_RATIO = 2  # rows of a part of the weight for each row of the batch; with fewer the sums cost more than they save


def split_products(graph: fx.Graph) -> None:
    """mm and addmm with such a weight, and mm that gives the gradient of one -> bmm, for small batches."""
    parts = threads()
    if not 2 <= parts <= _MOST_PARTS or not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return
    mutations = Mutations(graph)
    weights = {
        node for node in graph.nodes if node.op == "placeholder" and mutations.is_mutated(node) and _is_weight(node)
    }
    shapes = {node.meta["val"].shape for node in weights}
    for node in list(graph.nodes):
        if node.target not in (aten.mm.default, aten.addmm.default) or node.kwargs or _is_small(node):
            continue
        *bias, x, kernel = node.args
        if any(one.meta["val"].shape != node.meta["val"].shape[1:] for one in bias):
            continue
        transposed: Any = kernel.args[0] if kernel.target == aten.t.default else None
        with graph.inserting_before(node):
            if kernel in weights and _is_worth_it(parts, kernel, x):
                replace(node, _sum_of_parts(graph, parts, x, kernel, *bias))
            elif transposed in weights and _is_worth_it(parts, transposed, x):
                _replace_by_rows(graph, node, _partitioned_columns(graph, parts, x, transposed), *bias)
            elif not bias and node.meta["val"].shape in shapes and _is_worth_it(parts, node, kernel):
                replace(node, _rows_of_gradient(graph, parts, x, kernel))


def threads() -> int:
    """torch's number of threads for one operation."""
    return torch.get_num_threads()


def _is_weight(node: fx.Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.device.type != "cpu":
        return False
    return value.dim() == 2 and value.is_contiguous()


def _is_small(node: fx.Node) -> bool:
    return multiplications(node) <= LARGEST_BY_NUMPY


def _is_worth_it(parts: int, weight: fx.Node, batch: fx.Node) -> bool:
    """Whether the rows of a weight, or of its gradient, divide evenly, and the batch has few rows compared to them."""
    rows, batch_rows = weight.meta["val"].shape[0], batch.meta["val"].shape[0]
    size = weight.meta["val"].shape
    fits = _LEAST <= size.numel() <= _MOST and min(size) >= _LEAST_WIDTH
    return bool(fits and rows % parts == 0 and rows >= _LEAST_RATIO * parts * batch_rows)


def _sum_of_parts(graph: fx.Graph, parts: int, x: fx.Node, weight: fx.Node, bias: Any = None) -> fx.Node:
    batch, inner = x.meta["val"].shape
    columns = add_call(graph, aten.view.default, x, [batch, parts, inner // parts])
    columns = add_call(graph, aten.transpose.int, columns, 0, 1)
    product = add_call(graph, aten.bmm.default, columns, _split_rows(graph, parts, weight))
    if parts == 2:
        halves = [add_call(graph, aten.select.int, product, 0, place) for place in range(2)]
        total = add_call(graph, aten.add.Tensor, *halves)
    else:
        total = add_call(graph, aten.sum.dim_IntList, product, [0])
    return total if bias is None else add_call(graph, aten.add.Tensor, total, bias)


def _partitioned_columns(graph: fx.Graph, parts: int, x: fx.Node, weight: fx.Node) -> fx.Node:
    """(B, k, U / k): the columns of the product in k parts; in memory, the part is the first axis."""
    transposed = add_call(graph, aten.transpose.int, _split_rows(graph, parts, weight), 1, 2)
    product = add_call(graph, aten.bmm.default, _repeated(graph, parts, x), transposed)
    return add_call(graph, aten.transpose.int, product, 0, 1)


def _replace_by_rows(graph: fx.Graph, node: fx.Node, partitioned: fx.Node, bias: Any = None) -> None:
    """Replace `node` (B, U) by `partitioned` (B, k, U / k), made contiguous: by adding the bias, by its only reader if
    that is pointwise, or by a copy."""
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    if bias is not None:
        replace(node, _add_pointwise(graph, aten.add.Tensor, (partitioned, bias), partitioned))
    elif reader is not None and _is_pointwise(reader, node):
        with graph.inserting_before(reader):
            given = fx.map_arg(reader.args, lambda one: partitioned if one is node else one)
            replace(reader, _add_pointwise(graph, reader.target, given, partitioned))
        graph.erase_node(node)
    else:
        replace(node, _add_pointwise(graph, aten.clone.default, (partitioned,), partitioned))


def _add_pointwise(graph: fx.Graph, target: Any, args: Any, partitioned: fx.Node) -> fx.Node:
    """Add a pointwise operation on `partitioned` (B, k, U / k) and on values (B, U) or (U,); its result is (B, U)."""
    batch, parts, size = shape = partitioned.meta["val"].shape
    views: dict[fx.Node, fx.Node] = {partitioned: partitioned}
    for one in args:
        if isinstance(one, fx.Node) and one not in views:
            views[one] = add_call(graph, aten.view.default, one, [*one.meta["val"].shape[:-1], parts, size])
    result = add_call(graph, target, *fx.map_arg(args, views.__getitem__))
    declare_new(result, shape, partitioned.meta["val"])
    return add_call(graph, aten.view.default, result, [batch, parts * size])


def _is_pointwise(reader: fx.Node, node: fx.Node) -> bool:
    """Whether a reader is pointwise, with inputs and result of the node's shape and dtype, all contiguous."""
    if torch.Tag.pointwise not in getattr(reader.target, "tags", ()) or reader.kwargs:
        return False
    if draws_random(reader) or mutated_inputs(reader):
        return False
    first = node.meta["val"]
    values = [one.meta["val"] for one in (reader, *reader.all_input_nodes)]
    return all(
        isinstance(one, Tensor) and one.shape == first.shape and one.dtype == first.dtype and one.is_contiguous()
        for one in values
    )


def _rows_of_gradient(graph: fx.Graph, parts: int, left: fx.Node, right: fx.Node) -> fx.Node:
    product = add_call(graph, aten.bmm.default, _split_rows(graph, parts, left), _repeated(graph, parts, right))
    return add_call(graph, aten.view.default, product, [left.meta["val"].shape[0], right.meta["val"].shape[1]])


def _split_rows(graph: fx.Graph, parts: int, matrix: fx.Node) -> fx.Node:
    rows, columns = matrix.meta["val"].shape
    return add_call(graph, aten.view.default, matrix, [parts, rows // parts, columns])


def _repeated(graph: fx.Graph, parts: int, matrix: fx.Node) -> fx.Node:
    several = add_call(graph, aten.unsqueeze.default, matrix, 0)
    return add_call(graph, aten.expand.default, several, [parts, *matrix.meta["val"].shape])
