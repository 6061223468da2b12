"""Static memory planning: all intermediate results in one arena, in which bytes are reused once a value is dead."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import Storage, is_getitem, is_view, mutated_inputs, storages_of, tensors_of
from fanin.program.out_variants import EMPTIES, out_call

_ALIGNED = 64  # bytes: a cache line, and a vector register


@dataclass
class Plan:
    """The memory plan of a graph.

    Attributes:
        planned: the nodes whose results are written into the arena.
        offset: storage -> where it begins in the arena, in bytes.
        size: the bytes of the arena.
        device: that of the arena, which is the device of the largest result.
        lifetime: storage -> positions in the graph of its writer and of its last reader.
        nbytes: storage -> its size.
        reused: storages that their last reader overwrites with its own result.
    """

    planned: set[fx.Node] = field(default_factory=set)
    offset: dict[Storage, int] = field(default_factory=dict)
    size: int = 0
    device: torch.device | None = None
    lifetime: dict[Storage, tuple[int, int]] = field(default_factory=dict)
    nbytes: dict[Storage, int] = field(default_factory=dict)
    reused: set[Storage] = field(default_factory=set)


def plan_memory(graph: fx.Graph) -> Plan:
    """Plan the memory of every result whose operation has an out= variant.

    Two results may share bytes if the first is dead when the second is written; a pointwise operation may overwrite an
    input whose last reader it is. Results of the program get no memory here if their operation can write them directly
    into the caller's.
    """
    plan = Plan(device=_device(graph))
    position = {node: number for number, node in enumerate(graph.nodes)}
    direct = direct_results(graph)
    for node in graph.nodes:
        if _can_be_planned(node, plan.device) and node not in direct:
            plan.planned.add(node)
            for value, storage in zip(tensors_of(node.meta["val"]), storages_of(node), strict=True):
                plan.nbytes[storage] = max(_bytes(value), plan.nbytes.get(storage, 0))
                plan.lifetime[storage] = (position[node], position[node])
    for node in graph.nodes:
        for storage in storages_of(node):
            if storage in plan.lifetime and node.op == "call_function":
                last = max((position[user] for user in node.users), default=position[node])
                start, end = plan.lifetime[storage]
                plan.lifetime[storage] = (start, max(end, last, position[node]))
    hosts = _reuse_in_place(graph, plan, position)
    _assign_offsets(plan, hosts)
    return plan


def direct_results(graph: fx.Graph) -> dict[fx.Node, int]:
    """Nodes that are results of the program and can be written straight into the caller's memory -> which result."""
    found: dict[fx.Node, int] = {}
    for position, node in enumerate(graph.output_node().args[0]):  # type: ignore[arg-type]
        if not isinstance(node, fx.Node) or node in found or is_view(node) or is_getitem(node) or mutated_inputs(node):
            continue
        call = out_call(node) if node.op == "call_function" else None
        if call is not None and call.names in (["out"], [""]) and node.meta["val"].is_contiguous():
            found[node] = position
    return found


def _device(graph: fx.Graph) -> torch.device | None:
    """The device of the largest result; None without any."""
    values = (value for node in graph.nodes if node.op == "call_function" for value in tensors_of(node.meta.get("val")))
    largest = max(values, key=_bytes, default=None)
    return None if largest is None else largest.device


def _can_be_planned(node: fx.Node, device: torch.device | None) -> bool:
    is_precomputed = node.meta.get("constant") or node.meta.get("prepared")
    if node.op != "call_function" or is_precomputed or is_view(node) or is_getitem(node):
        return False
    values = list(tensors_of(node.meta.get("val")))
    if not values or any(not _is_plannable(value) or value.device != device for value in values):
        return False
    if node.target in EMPTIES:
        return True
    call = out_call(node)
    return call is not None and len(call.names) == len(values)


def _is_plannable(value: Tensor) -> bool:
    """Whether a value is a strided, non-empty tensor that fills its storage from the beginning."""
    dense = value.layout is torch.strided and value.storage_offset() == 0 and value.numel() > 0
    return dense and _bytes(value) >= value.numel() * value.element_size()


def is_dense(value: Tensor) -> bool:
    """Whether a tensor's numbers fill their memory: no gaps, no overlaps."""
    return _bytes(value) == value.numel() * value.element_size()


def _bytes(value: Tensor) -> int:
    extent = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return int(extent) * value.element_size()


def _reuse_in_place(graph: fx.Graph, plan: Plan, position: dict[fx.Node, int]) -> dict[Storage, Storage]:
    """Storage of a pointwise result -> the storage of the dead input that it takes over."""
    hosts: dict[Storage, Storage] = {}
    for node in graph.nodes:
        if node not in plan.planned or torch.Tag.pointwise not in getattr(node.target, "tags", ()):
            continue
        value, storage = node.meta["val"], storages_of(node)[0]
        if not isinstance(value, Tensor):
            continue
        for source in node.all_input_nodes:
            source_storage = storages_of(source)[0] if isinstance(source.meta.get("val"), Tensor) else None
            if (
                source_storage not in plan.lifetime
                or plan.lifetime[source_storage][1] != position[node]
                or plan.nbytes[source_storage] != plan.nbytes[storage]
            ):
                continue
            readers = [one for one in node.all_input_nodes if source_storage in storages_of(one)]
            if all(_layout(one.meta["val"]) == _layout(value) for one in readers):
                hosts[storage] = hosts.get(source_storage, source_storage)
                plan.reused.add(source_storage)
                break
    return hosts


def _layout(value: Any) -> Any:
    """All that says where each number of a tensor lies in its storage; None for another value."""
    return (value.shape, value.dtype, value.stride(), value.storage_offset()) if isinstance(value, Tensor) else None


def _assign_offsets(plan: Plan, hosts: dict[Storage, Storage]) -> None:
    """Greedy placement: the largest first, each at the lowest offset that no storage live at the same time covers."""
    groups: dict[Storage, list[Storage]] = {}
    for storage in plan.lifetime:
        groups.setdefault(hosts.get(storage, storage), []).append(storage)
    lifetimes = {
        host: (min(plan.lifetime[m][0] for m in group), max(plan.lifetime[m][1] for m in group))
        for host, group in groups.items()
    }
    placed: list[tuple[int, int, tuple[int, int]]] = []  # offset, size, lifetime
    for host in sorted(groups, key=lambda one: (-plan.nbytes[one], lifetimes[one])):
        size = -(-plan.nbytes[host] // _ALIGNED) * _ALIGNED
        offset = 0
        for start, length, lifetime in placed:
            overlaps = lifetime[0] <= lifetimes[host][1] and lifetimes[host][0] <= lifetime[1]
            if overlaps and offset + size > start and offset < start + length:
                offset = start + length
        insort(placed, (offset, size, lifetimes[host]))
        plan.size = max(plan.size, offset + size)
        for storage in groups[host]:
            plan.offset[storage] = offset


def view_of_arena(arena: Tensor, offset: int, value: Tensor) -> Tensor:
    """The tensor at `offset` bytes of the arena, shaped like `value`."""
    part = arena[offset : offset + _bytes(value)].view(value.dtype)
    return part.as_strided(value.shape, value.stride())
