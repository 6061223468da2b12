"""Redundant views: `detach(x)`, `t(t(x))`, `view` or `expand` to the same shape."""

from __future__ import annotations

from torch import fx

from fanin.program.effects import aten, is_getitem, is_view
from fanin.program.passes.rewrite import replace, same_layout

_TRANSPOSES = (aten.t.default, aten.transpose.int, aten.permute.default)


def drop_views(graph: fx.Graph) -> None:
    """Replace such views by what they view."""
    for node in list(graph.nodes):
        if not is_view(node) or is_getitem(node):
            continue
        source = _source_of_double_transpose(node) or node.args[0]
        if source is not None and _is_same_view(source, node):
            replace(node, source)


def _is_same_view(source: fx.Node, view: fx.Node) -> bool:
    one, two = source.meta["val"], view.meta["val"]
    return (
        not isinstance(two, list | tuple) and same_layout(source, view) and one.storage_offset() == two.storage_offset()
    )


def _source_of_double_transpose(node: fx.Node) -> fx.Node | None:
    """x in t(t(x)), or in another transposition done twice; else None."""
    first = node.args[0]
    is_double = node.target in _TRANSPOSES and isinstance(first, fx.Node) and first.target == node.target
    return first.args[0] if is_double else None  # type: ignore[union-attr, return-value]
