"""Views that show nothing new: `detach(x)`, `t(t(x))`, `view` or `expand` to the shape that is there."""

from __future__ import annotations

from torch import fx

from fanin.program.effects import aten, is_getitem, is_view
from fanin.program.passes.rewrite import replace, same_layout

_TURNS = (aten.t.default, aten.transpose.int, aten.permute.default)


def drop_views(graph: fx.Graph) -> None:
    """Let the readers of such a view read what it views."""
    for node in list(graph.nodes):
        if not is_view(node) or is_getitem(node):
            continue
        source = _undone(node) or node.args[0]
        if source is not None and _looks_the_same(source, node):
            replace(node, source)


def _looks_the_same(source: fx.Node, view: fx.Node) -> bool:
    one, two = source.meta["val"], view.meta["val"]
    return (
        not isinstance(two, list | tuple) and same_layout(source, view) and one.storage_offset() == two.storage_offset()
    )


def _undone(node: fx.Node) -> fx.Node | None:
    """What a turn turns back: x in t(t(x))."""
    first = node.args[0]
    turned = node.target in _TURNS and isinstance(first, fx.Node) and first.target == node.target
    return first.args[0] if turned else None  # type: ignore[union-attr, return-value]
