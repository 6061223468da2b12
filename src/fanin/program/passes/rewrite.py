"""The one way in which passes put a value in another's place."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx


def replace(old: fx.Node, new: fx.Node) -> None:
    """Let every reader of `old` read `new`, and drop `old`. AssertionError unless shape, dtype and strides agree."""
    was, now = old.meta["val"], new.meta["val"]
    if isinstance(was, Tensor):
        assert (was.shape, was.dtype, was.stride()) == (now.shape, now.dtype, now.stride()), (old, new)
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)


def same_layout(first: fx.Node, second: fx.Node) -> bool:
    """Whether two values have the same shape, dtype and strides."""
    one, two = first.meta["val"], second.meta["val"]
    return (one.shape, one.dtype, one.stride()) == (two.shape, two.dtype, two.stride())


def declare(node: fx.Node, value: Any) -> None:
    """Say what a new node gives: a fake tensor with its shape, dtype and strides."""
    node.meta["val"] = value


def added(graph: fx.Graph, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A new node that knows what it gives: the operation's own answer for fake tensors."""
    node = graph.call_function(target, args, kwargs)
    given, named = fx.map_arg((args, kwargs), lambda one: one.meta["val"])
    with next(one.meta["val"].fake_mode for one in node.all_input_nodes):
        declare(node, target(*given, **named))
    return node
