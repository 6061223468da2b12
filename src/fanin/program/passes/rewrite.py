"""Helpers of passes: new nodes with their fake values, and the replacement of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import aten


def replace(old: fx.Node, new: fx.Node) -> None:
    """Let all users of `old` read `new`, and erase `old`. AssertionError unless shape, dtype and strides agree."""
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
    """Set the fake value of a new node, which says its shape, dtype and strides."""
    node.meta["val"] = value


def declare_new(node: fx.Node, shape: Sequence[int], like: Any) -> None:
    """Set the fake value of a new node: contiguous, with the dtype and device of the fake tensor `like`."""
    with like.fake_mode:
        declare(node, torch.empty(shape, dtype=like.dtype, device=like.device))


def add_filled(graph: fx.Graph, shape: Sequence[int], number: float, like: Any) -> fx.Node:
    """Add a tensor filled with a number, with the dtype and device of the fake tensor `like`."""
    options = {"dtype": like.dtype, "device": like.device}
    node = graph.call_function(aten.full.default, (list(shape), number), options)
    declare_new(node, shape, like)
    return node


def add_call(graph: fx.Graph, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """Add a call of an operation; its fake value is what the operation returns for fake arguments."""
    node = graph.call_function(target, args, kwargs)
    values, named_values = fx.map_arg((args, kwargs), lambda one: one.meta["val"])
    example = next(one.meta["val"] for one in node.all_input_nodes)
    with example.fake_mode, torch.autocast(example.device.type, enabled=False):  # what is traced has its casts
        declare(node, target(*values, **named_values))
    return node
