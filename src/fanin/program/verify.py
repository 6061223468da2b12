"""Checks a graph after each pass: everything is written before it is read, and declared as it will be."""

from __future__ import annotations

from torch import Tensor, fx

from fanin.program.trace import Traced


def verify(traced: Traced, after: str) -> None:
    """AssertionError, naming the pass and the node, for a graph that cannot run."""
    seen: set[fx.Node] = set()
    for node in traced.graph.nodes:
        for source in node.all_input_nodes:
            assert source in seen, f"after {after}: {node} reads {source}, which is not written before it"
        assert node.op != "call_function" or not node.users or "val" in node.meta, (
            f"after {after}: {node} has no declared result"
        )
        if node.meta.get("constant"):
            value = node.meta["val"]
            assert isinstance(value, Tensor | tuple | list), f"after {after}: constant {node} is no tensor"
        seen.add(node)
