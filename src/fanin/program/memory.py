"""Where intermediate results are kept: one piece of memory for all, in which places are used again and again."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import Memory, changed, is_getitem, is_view, memories, tensors_of
from fanin.program.out_variants import EMPTIES, writing_call

_ALIGNED = 64  # bytes: a cache line, and a vector register


@dataclass
class Plan:
    """Where each intermediate result lives.

    Attributes:
        kept: the nodes whose results are written into planned memory.
        offset: memory -> its place in the arena, in bytes.
        size: the bytes of the arena.
        device: where the arena is: with the largest result.
        span: memory -> (position of the first writer, of the last reader).
        bytes: memory -> its size.
        overwritten: memory that the last operation to read it overwrites.
    """

    kept: set[fx.Node] = field(default_factory=set)
    offset: dict[Memory, int] = field(default_factory=dict)
    size: int = 0
    device: torch.device | None = None
    span: dict[Memory, tuple[int, int]] = field(default_factory=dict)
    bytes: dict[Memory, int] = field(default_factory=dict)
    overwritten: set[Memory] = field(default_factory=set)


def plan_memory(graph: fx.Graph) -> Plan:
    """Give a place to every result that an operation can write into given memory.

    Two results share a place if the first is no longer read when the second is written; a pointwise operation may
    overwrite the input that it is the last to read. What the program returns is written where the caller wants it, if
    the operation can do that.
    """
    plan = Plan(device=_device(graph))
    place = {node: number for number, node in enumerate(graph.nodes)}
    direct = written_by_themselves(graph)
    for node in graph.nodes:
        if _can_be_kept(node, plan.device) and node not in direct:
            plan.kept.add(node)
            for value, memory in zip(tensors_of(node.meta["val"]), memories(node), strict=True):
                plan.bytes[memory] = max(_bytes(value), plan.bytes.get(memory, 0))
                plan.span[memory] = (place[node], place[node])
    for node in graph.nodes:
        for memory in memories(node):
            if memory in plan.span and node.op == "call_function":
                last = max((place[user] for user in node.users), default=place[node])
                start, end = plan.span[memory]
                plan.span[memory] = (start, max(end, last, place[node]))
    hosts = _overwritten(graph, plan, place)
    _place(plan, hosts)
    return plan


def written_by_themselves(graph: fx.Graph) -> dict[fx.Node, int]:
    """The results that their own operation can write where the caller wants them, with their places."""
    found: dict[fx.Node, int] = {}
    for place, node in enumerate(graph.output_node().args[0]):  # type: ignore[arg-type]
        if not isinstance(node, fx.Node) or node in found or is_view(node) or is_getitem(node) or changed(node):
            continue
        call = writing_call(node) if node.op == "call_function" else None
        if call is not None and call.names in (["out"], [""]) and node.meta["val"].is_contiguous():
            found[node] = place
    return found


def _device(graph: fx.Graph) -> torch.device | None:
    """The device of the largest result; None without any."""
    values = (value for node in graph.nodes if node.op == "call_function" for value in tensors_of(node.meta.get("val")))
    largest = max(values, key=_bytes, default=None)
    return None if largest is None else largest.device


def _can_be_kept(node: fx.Node, device: torch.device | None) -> bool:
    lasts = node.meta.get("constant") or node.meta.get("prepared")
    if node.op != "call_function" or lasts or is_view(node) or is_getitem(node):
        return False
    values = list(tensors_of(node.meta.get("val")))
    if not values or any(not _is_plain(value) or value.device != device for value in values):
        return False
    if node.target in EMPTIES:
        return True
    call = writing_call(node)
    return call is not None and len(call.names) == len(values)


def _is_plain(value: Tensor) -> bool:
    """Dense memory from its beginning, of a size that is worth a place."""
    dense = value.layout is torch.strided and value.storage_offset() == 0 and value.numel() > 0
    return dense and _bytes(value) >= value.numel() * value.element_size()


def is_dense(value: Tensor) -> bool:
    """Whether a tensor has a place in memory for each number, and no others."""
    return _bytes(value) == value.numel() * value.element_size()


def _bytes(value: Tensor) -> int:
    extent = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return int(extent) * value.element_size()


def _overwritten(graph: fx.Graph, plan: Plan, place: dict[fx.Node, int]) -> dict[Memory, Memory]:
    """Result -> the input whose place it takes, as pointwise operations allow."""
    hosts: dict[Memory, Memory] = {}
    for node in graph.nodes:
        if node not in plan.kept or torch.Tag.pointwise not in getattr(node.target, "tags", ()):
            continue
        value, memory = node.meta["val"], memories(node)[0]
        if not isinstance(value, Tensor):
            continue
        for source in node.all_input_nodes:
            held = memories(source)[0] if isinstance(source.meta.get("val"), Tensor) else None
            if held not in plan.span or plan.span[held][1] != place[node] or plan.bytes[held] != plan.bytes[memory]:
                continue
            readers = [one for one in node.all_input_nodes if held in memories(one)]
            if all(_layout(one.meta["val"]) == _layout(value) for one in readers):
                hosts[memory] = hosts.get(held, held)
                plan.overwritten.add(held)
                break
    return hosts


def _layout(value: Any) -> Any:
    """Where each number of a tensor lies in its memory."""
    return (value.shape, value.dtype, value.stride(), value.storage_offset()) if isinstance(value, Tensor) else None


def _place(plan: Plan, hosts: dict[Memory, Memory]) -> None:
    """Offsets, the largest first, each as low as the others alive at that time leave room."""
    groups: dict[Memory, list[Memory]] = {}
    for memory in plan.span:
        groups.setdefault(hosts.get(memory, memory), []).append(memory)
    spans = {
        host: (min(plan.span[m][0] for m in group), max(plan.span[m][1] for m in group))
        for host, group in groups.items()
    }
    placed: list[tuple[int, int, tuple[int, int]]] = []  # offset, size, span
    for host in sorted(groups, key=lambda one: (-plan.bytes[one], spans[one])):
        size = -(-plan.bytes[host] // _ALIGNED) * _ALIGNED
        offset = 0
        for start, length, span in placed:
            meets = span[0] <= spans[host][1] and spans[host][0] <= span[1]
            if meets and offset + size > start and offset < start + length:
                offset = start + length
        insort(placed, (offset, size, spans[host]))
        plan.size = max(plan.size, offset + size)
        for memory in groups[host]:
            plan.offset[memory] = offset


def view_of_arena(arena: Tensor, offset: int, value: Tensor) -> Tensor:
    """The tensor at `offset` bytes of the arena, shaped like `value`."""
    part = arena[offset : offset + _bytes(value)].view(value.dtype)
    return part.as_strided(value.shape, value.stride())
