"""Whether a graph works row by row: each row of its results depends on the same row of its inputs alone.

If it does, a batch may be split into pieces, or several batches joined, without a change of any row. The function is
traced for two batch sizes: whatever differs between the two graphs, other than sizes, depends on the batch size. In
each operation the first axis must stay an axis of rows: it may be folded with others, (B, T, F) to (B T, F), but
nothing may be reduced over it, moved along it, or depend on an index in it. An operation that is not known here counts
as mixing rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import aten, draws_random, is_getitem, mutated_inputs
from fanin.program.matmul import PRODUCTS
from fanin.program.trace import Traced

_SIZED = {aten.view.default, aten._unsafe_view.default, aten.expand.default}
_UNIFORM = {
    aten.full.default, aten.zeros.default, aten.ones.default, aten.new_zeros.default, aten.new_ones.default,
    aten.new_full.default,
}  # fmt: skip
_COPIES = {aten.clone.default, aten.detach.default, aten.alias.default, aten._to_copy.default}
# Operation -> the position, from 0, of the argument that names the axis, or axes, it works along.
_AXIS_ARGUMENT = {
    aten.sum.dim_IntList: 1, aten.mean.dim: 1, aten.amax.default: 1, aten.amin.default: 1, aten.argmax.default: 1,
    aten.argmin.default: 1, aten.var.correction: 1, aten.any.dim: 1, aten.all.dim: 1, aten.logsumexp.default: 1,
    aten.prod.dim_int: 1, aten.cumsum.default: 1, aten._softmax.default: 1, aten._log_softmax.default: 1,
    aten.slice.Tensor: 1, aten.select.int: 1, aten.split.Tensor: 2, aten.split_with_sizes.default: 2,
    aten.squeeze.dim: 1, aten.squeeze.dims: 1, aten.linalg_vector_norm.default: 2,
}  # fmt: skip


def rows_are_independent(few: Traced, more: Traced) -> bool:
    """Whether each row of the results depends on the same row of the inputs alone, and not on the number of rows.

    Args:
        few: a function of inputs (B, ...), traced for B rows.
        more: the same function, traced for another number of rows.
    """
    nodes, partners = list(few.graph.nodes), list(more.graph.nodes)
    if [(one.op, _target(one)) for one in nodes] != [(one.op, _target(one)) for one in partners]:
        return False
    rows = [_value(traced.inputs[0]).shape[0] for traced in (few, more)]
    partner = dict(zip(nodes, partners, strict=True))
    row_wise = set(few.inputs)  # values with one or more entries of the first axis for each row
    for node in nodes:
        if node.op == "get_attr" and not _are_equal(few.static[node], more.static[partner[node]]):
            return False
        if node.op != "call_function":
            continue
        if not _constants_agree(node, partner[node]) or draws_random(node) or not set(mutated_inputs(node)) <= row_wise:
            return False
        if not row_wise.intersection(node.all_input_nodes):
            if _shapes(node) == _shapes(partner[node]):
                continue  # the same for any number of rows
            if node.target not in _UNIFORM:
                return False
        elif not _is_row_wise(node, row_wise):
            return False
        if not _scales_with_rows(node, partner[node], rows):
            return False
        row_wise.add(node)
    return all(node in row_wise and _value(node).shape[0] == rows[0] for node in (*few.inputs, *few.outputs))


def _target(node: fx.Node) -> Any:
    return node.target if node.op == "call_function" else None


def _are_equal(one: Any, other: Any) -> bool:
    """Whether both graphs captured the same tensor."""
    return one is other or (isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other))


def _shapes(node: fx.Node) -> list[Any]:
    value = node.meta.get("val")
    return [getattr(one, "shape", one) for one in (value if isinstance(value, (list, tuple)) else [value])]


def _scales_with_rows(node: fx.Node, partner: fx.Node, rows: list[int]) -> bool:
    """Whether the first axis is as many times the number of rows in both graphs, and the other axes are equal."""
    pairs = zip(_shapes(node), _shapes(partner), strict=True)
    return all(
        len(one) > 0 and one[0] * rows[1] == other[0] * rows[0] and one[0] % rows[0] == 0 and one[1:] == other[1:]
        for one, other in pairs
    )


def _constants_agree(one: fx.Node, other: fx.Node) -> bool:
    """Whether two operations have equal arguments, apart from nodes and from the sizes of views and fills."""
    if one.target in _SIZED or one.target in _UNIFORM:
        return one.args[2:] == other.args[2:]
    return _constants(one) == _constants(other)


def _constants(node: fx.Node) -> str:
    return repr(fx.map_arg((node.args, node.kwargs), lambda _: "a tensor"))


def _is_row_wise(node: fx.Node, row_wise: set[fx.Node]) -> bool:
    """Whether an operation treats each row by itself, provided that its result has the rows along its first axis."""
    target, args = node.target, node.args
    if target in _COPIES or is_getitem(node) or target in (aten.view.default, aten._unsafe_view.default):
        return True
    if torch.Tag.pointwise in getattr(target, "tags", ()):
        return _is_pointwise(node, row_wise)
    if target in _AXIS_ARGUMENT:
        place = _AXIS_ARGUMENT[target]
        named = args[place] if len(args) > place else node.kwargs.get("dim", 0)
        return args[0] in row_wise and _spares_first_axis(args[0], named)
    rule = _RULES.get(target)
    return rule is not None and rule(node, row_wise)


def _is_pointwise(node: fx.Node, row_wise: set[fx.Node]) -> bool:
    dims = _value(node).dim()
    for source in node.all_input_nodes:
        value = _value(source)
        if source in row_wise:
            if value.dim() != dims or value.shape[0] != _value(node).shape[0]:
                return False
        elif value.dim() == dims and value.shape[0] != 1:
            return False
    return True


def _spares_first_axis(source: Any, named: Any) -> bool:
    """Whether axes are given, and the first is not among them."""
    dims = _value(source).dim()
    axes = named if isinstance(named, (list, tuple)) else [named]
    return bool(axes) and all(isinstance(axis, int) and axis % dims != 0 for axis in axes)


def _value(node: Any) -> Tensor:
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return value


def _only_first_is_row_wise(node: fx.Node, row_wise: set[fx.Node]) -> bool:
    """Whether the first argument has rows, and no other does."""
    return node.args[0] in row_wise and not row_wise.intersection(_nodes(node.args[1:]))


def _nodes(args: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(args, found.append)
    return found


def _product(node: fx.Node, row_wise: set[fx.Node]) -> bool:
    *bias, x, kernel = node.args
    is_broadcast = all(one not in row_wise and (_value(one).dim() < 2 or _value(one).shape[0] == 1) for one in bias)
    return is_broadcast and x in row_wise and kernel not in row_wise and not node.kwargs


def _all_are_row_wise(node: fx.Node, row_wise: set[fx.Node]) -> bool:
    return set(node.all_input_nodes) <= row_wise


_RULES: dict[Any, Callable[[fx.Node, set[fx.Node]], bool]] = {
    **dict.fromkeys(PRODUCTS, _product),
    aten.bmm.default: _all_are_row_wise,
    aten.cat.default: lambda node, row_wise: (
        _all_are_row_wise(node, row_wise) and _spares_first_axis(node.args[0][0], (node.args[1:] or (0,))[0])  # type: ignore[index]
    ),
    aten.gather.default: lambda node, row_wise: (
        _all_are_row_wise(node, row_wise) and _spares_first_axis(node.args[0], node.args[1])
    ),
    aten.index_select.default: lambda node, row_wise: (
        _only_first_is_row_wise(node, row_wise) and _spares_first_axis(node.args[0], node.args[1])
    ),
    aten.embedding.default: lambda node, row_wise: node.args[0] not in row_wise and node.args[1] in row_wise,
    aten.native_layer_norm.default: lambda node, row_wise: (
        _only_first_is_row_wise(node, row_wise) and len(node.args[1]) < _value(node.args[0]).dim()  # type: ignore[arg-type]
    ),
    aten.native_batch_norm.default: lambda node, row_wise: (
        _only_first_is_row_wise(node, row_wise) and node.args[5] is False
    ),
    aten.expand.default: lambda node, row_wise: _value(node.args[0]).dim() == _value(node).dim(),
    aten.unsqueeze.default: lambda node, row_wise: int(node.args[1]) % _value(node).dim() != 0,  # type: ignore[arg-type]
    aten.permute.default: lambda node, row_wise: bool(node.args[1][0] % _value(node).dim() == 0),  # type: ignore[index, operator]
    aten.transpose.int: lambda node, row_wise: _spares_first_axis(node.args[0], list(node.args[1:])),
}
