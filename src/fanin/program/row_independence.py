"""Whether the rows of a batch go through a graph without seeing each other.

Then a batch may be worked on in pieces, or several at once, and every row comes out as before. A graph is traced twice,
for two numbers of rows: what differs between the two beside sizes depends on that number. In each operation the first
axis, which is made of rows, has to stay as it is: it may be folded with others, (B, T, F) to (B T, F), but nothing may
be summed over it, moved along it, or depend on a place in it. What is not known here counts as seeing other rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import aten, changed, draws, is_getitem
from fanin.program.matmul import PRODUCTS
from fanin.program.trace import Traced

_SIZED = {aten.view.default, aten._unsafe_view.default, aten.expand.default}
_UNIFORM = {
    aten.full.default, aten.zeros.default, aten.ones.default, aten.new_zeros.default, aten.new_ones.default,
    aten.new_full.default,
}  # fmt: skip
_SAME = {aten.clone.default, aten.detach.default, aten.alias.default, aten._to_copy.default}
# Operations and which of their arguments, counted from 0, name an axis or several.
_ALONG = {
    aten.sum.dim_IntList: 1, aten.mean.dim: 1, aten.amax.default: 1, aten.amin.default: 1, aten.argmax.default: 1,
    aten.argmin.default: 1, aten.var.correction: 1, aten.any.dim: 1, aten.all.dim: 1, aten.logsumexp.default: 1,
    aten.prod.dim_int: 1, aten.cumsum.default: 1, aten._softmax.default: 1, aten._log_softmax.default: 1,
    aten.slice.Tensor: 1, aten.select.int: 1, aten.split.Tensor: 2, aten.split_with_sizes.default: 2,
    aten.squeeze.dim: 1, aten.squeeze.dims: 1, aten.linalg_vector_norm.default: 2,
}  # fmt: skip


def rows_are_independent(few: Traced, more: Traced) -> bool:
    """Whether every row of the results depends on the same row of the inputs alone, and not on how many there are.

    Args:
        few: a function of inputs (B, ...), traced for B rows.
        more: the same function, traced for another number of rows.
    """
    ones, others = list(few.graph.nodes), list(more.graph.nodes)
    if [(one.op, _target(one)) for one in ones] != [(one.op, _target(one)) for one in others]:
        return False
    rows = [_value(traced.inputs[0]).shape[0] for traced in (few, more)]
    partner = dict(zip(ones, others, strict=True))
    apart = set(few.inputs)
    for node in ones:
        if node.op == "get_attr" and not _are_equal(few.static[node], more.static[partner[node]]):
            return False
        if node.op != "call_function":
            continue
        if not _numbers_agree(node, partner[node]) or draws(node) or not set(changed(node)) <= apart:
            return False
        if not apart.intersection(node.all_input_nodes):
            if _shapes(node) == _shapes(partner[node]):
                continue  # the same for any number of rows
            if node.target not in _UNIFORM:
                return False
        elif not _keeps_rows(node, apart):
            return False
        if not _is_made_of_rows(node, partner[node], rows):
            return False
        apart.add(node)
    return all(node in apart and _value(node).shape[0] == rows[0] for node in (*few.inputs, *few.outputs))


def _target(node: fx.Node) -> Any:
    return node.target if node.op == "call_function" else None


def _are_equal(one: Any, other: Any) -> bool:
    """Whether both graphs took the same tensor from elsewhere."""
    return one is other or (isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other))


def _shapes(node: fx.Node) -> list[Any]:
    value = node.meta.get("val")
    return [getattr(one, "shape", one) for one in (value if isinstance(value, (list, tuple)) else [value])]


def _is_made_of_rows(node: fx.Node, partner: fx.Node, rows: list[int]) -> bool:
    """Whether the first axis has the same number of places for each row in both graphs."""
    pairs = zip(_shapes(node), _shapes(partner), strict=True)
    return all(
        len(one) > 0 and one[0] * rows[1] == other[0] * rows[0] and one[0] % rows[0] == 0 and one[1:] == other[1:]
        for one, other in pairs
    )


def _numbers_agree(one: fx.Node, other: fx.Node) -> bool:
    """Whether two operations have the same arguments beside nodes, and sizes where there have to be some."""
    if one.target in _SIZED or one.target in _UNIFORM:
        return one.args[2:] == other.args[2:]
    return _numbers(one) == _numbers(other)


def _numbers(node: fx.Node) -> str:
    return repr(fx.map_arg((node.args, node.kwargs), lambda _: "a tensor"))


def _keeps_rows(node: fx.Node, apart: set[fx.Node]) -> bool:
    """Whether an operation on rows leaves each to itself, if its result has them along its first axis."""
    target, args = node.target, node.args
    if target in _SAME or is_getitem(node) or target in (aten.view.default, aten._unsafe_view.default):
        return True
    if torch.Tag.pointwise in getattr(target, "tags", ()):
        return _is_pointwise(node, apart)
    if target in _ALONG:
        place = _ALONG[target]
        named = args[place] if len(args) > place else node.kwargs.get("dim", 0)
        return args[0] in apart and _other_axes(args[0], named)
    rule = _RULES.get(target)
    return rule is not None and rule(node, apart)


def _is_pointwise(node: fx.Node, apart: set[fx.Node]) -> bool:
    dims = _value(node).dim()
    for source in node.all_input_nodes:
        value = _value(source)
        if source in apart:
            if value.dim() != dims or value.shape[0] != _value(node).shape[0]:
                return False
        elif value.dim() == dims and value.shape[0] != 1:
            return False
    return True


def _other_axes(source: Any, named: Any) -> bool:
    """Whether axes are named, and the first is not among them."""
    dims = _value(source).dim()
    axes = named if isinstance(named, (list, tuple)) else [named]
    return bool(axes) and all(isinstance(axis, int) and axis % dims != 0 for axis in axes)


def _value(node: Any) -> Tensor:
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return value


def _first_alone(node: fx.Node, apart: set[fx.Node]) -> bool:
    """Rows come in as the first argument and nowhere else."""
    return node.args[0] in apart and not apart.intersection(_nodes(node.args[1:]))


def _nodes(args: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(args, found.append)
    return found


def _product(node: fx.Node, apart: set[fx.Node]) -> bool:
    *bias, x, kernel = node.args
    plain = all(one not in apart and (_value(one).dim() < 2 or _value(one).shape[0] == 1) for one in bias)
    return plain and x in apart and kernel not in apart and not node.kwargs


def _all_of_them(node: fx.Node, apart: set[fx.Node]) -> bool:
    return set(node.all_input_nodes) <= apart


_RULES: dict[Any, Callable[[fx.Node, set[fx.Node]], bool]] = {
    **dict.fromkeys(PRODUCTS, _product),
    aten.bmm.default: _all_of_them,
    aten.cat.default: lambda node, apart: (
        _all_of_them(node, apart) and _other_axes(node.args[0][0], (node.args[1:] or (0,))[0])  # type: ignore[index]
    ),
    aten.gather.default: lambda node, apart: _all_of_them(node, apart) and _other_axes(node.args[0], node.args[1]),
    aten.index_select.default: lambda node, apart: (
        _first_alone(node, apart) and _other_axes(node.args[0], node.args[1])
    ),
    aten.embedding.default: lambda node, apart: node.args[0] not in apart and node.args[1] in apart,
    aten.native_layer_norm.default: lambda node, apart: (
        _first_alone(node, apart) and len(node.args[1]) < _value(node.args[0]).dim()  # type: ignore[arg-type]
    ),
    aten.native_batch_norm.default: lambda node, apart: _first_alone(node, apart) and node.args[5] is False,
    aten.expand.default: lambda node, apart: _value(node.args[0]).dim() == _value(node).dim(),
    aten.unsqueeze.default: lambda node, apart: int(node.args[1]) % _value(node).dim() != 0,  # type: ignore[arg-type]
    aten.permute.default: lambda node, apart: bool(node.args[1][0] % _value(node).dim() == 0),  # type: ignore[index, operator]
    aten.transpose.int: lambda node, apart: _other_axes(node.args[0], list(node.args[1:])),
}
