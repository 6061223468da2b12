"""Checks a graph after each pass, and a memory plan: what is read was written, is still there, and is as declared."""

from __future__ import annotations

from torch import Tensor, fx

from fanin.program.effects import Memory
from fanin.program.memory import Plan
from fanin.program.trace import Traced


def verify(traced: Traced, after: str) -> None:
    """AssertionError, naming the pass and the node, for a graph that cannot run."""
    seen: set[fx.Node] = set()
    for node in traced.graph.nodes:
        for source in node.all_input_nodes:
            assert source in seen, f"after {after}: {node} reads {source}, which is not written before it"
        is_declared = "val" in node.meta or node.op != "call_function" or not node.users
        assert is_declared, f"after {after}: {node} has no declared result"
        is_tensor = isinstance(node.meta.get("val"), Tensor | tuple | list)
        assert is_tensor or not node.meta.get("constant"), f"after {after}: constant {node} is no tensor"
        seen.add(node)


def verify_plan(plan: Plan) -> None:
    """AssertionError if a result is written over one that is still to be read."""
    alive: list[tuple[int, int, int, Memory]] = []  # last reader, first byte, byte after the last
    for memory in sorted(plan.span, key=lambda one: plan.span[one]):
        start, end = plan.span[memory]
        first = plan.offset[memory]
        last = first + plan.bytes[memory]
        assert last <= plan.size, f"{memory} lies outside the planned memory"
        # An operation may overwrite the input that it is the last to read: then one ends where the other starts.
        alive = [one for one in alive if one[0] > start or (one[0] == start and one[3] not in plan.overwritten)]
        for _, from_byte, to_byte, other in alive:
            assert to_byte <= first or last <= from_byte, f"{memory} would overwrite {other}, which is still read"
        alive.append((end, first, last, memory))
