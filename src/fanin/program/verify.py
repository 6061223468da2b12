"""Checks of a graph after each pass, and of a memory plan."""

from __future__ import annotations

from torch import Tensor, fx

from fanin.program.effects import Storage
from fanin.program.memory import Plan
from fanin.program.trace import Traced


def verify(traced: Traced, after: str) -> None:
    """AssertionError, naming the pass and the node, for a read before its write or a value without a fake tensor."""
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
    """AssertionError if two storages overlap in the arena while both are live."""
    live: list[tuple[int, int, int, Storage]] = []  # last reader, first byte, byte after the last
    for storage in sorted(plan.lifetime, key=lambda one: plan.lifetime[one]):
        start, end = plan.lifetime[storage]
        first = plan.offset[storage]
        last = first + plan.nbytes[storage]
        assert last <= plan.size, f"{storage} lies outside the planned memory"
        # An operation may overwrite the input that it is the last to read: then one ends where the other starts.
        live = [one for one in live if one[0] > start or (one[0] == start and one[3] not in plan.reused)]
        for _, from_byte, to_byte, other in live:
            assert to_byte <= first or last <= from_byte, f"{storage} would overwrite {other}, which is still read"
        live.append((end, first, last, storage))
