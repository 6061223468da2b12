"""What a program costs: operations, FLOPs, bytes moved, and the memory of intermediate results."""

from __future__ import annotations

from typing import NamedTuple

from torch import fx
from torch.utils.flop_counter import flop_registry

from fanin.program.effects import aten, is_getitem, is_view, mutated_inputs, returned_input, tensors_of
from fanin.program.matmul import ADDMM_RELU
from fanin.program.memory import plan_memory
from fanin.program.trace import Traced


class Count(NamedTuple):
    """The cost of one run.

    Attributes:
        operations: those that compute something: no views, no constants.
        flops: of matrix products, 2 for each multiplication with its addition.
        bytes: read and written by all operations, each as if it were alone.
        peak: bytes of memory for intermediate results, planned as if this were the final graph.
    """

    operations: int
    flops: int
    bytes: int
    peak: int


class Stages:
    """The cost of a graph after each pass.

    Counting plans memory, which takes longer than most passes: after a pass that changed nothing it is not repeated.
    """

    def __init__(self, traced: Traced):
        self._traced = traced
        self._fingerprints: list[tuple[object, ...]] = []
        self.costs: list[tuple[str, Count]] = []

    def add(self, name: str) -> None:
        """Note the cost of the graph as it is now, under this name."""
        fingerprints = [_fingerprint(node) for node in self._traced.graph.nodes]
        found = self.costs[-1][1] if self.costs and fingerprints == self._fingerprints else count(self._traced)
        self._fingerprints = fingerprints
        self.costs.append((name, found))


def _fingerprint(node: fx.Node) -> tuple[object, ...]:
    """All that a pass may change of a node."""
    return node, node.target, node.args, node.kwargs, node.meta.get("constant"), node.meta.get("prepared")


def count(traced: Traced) -> Count:
    """The cost of a graph as it is now."""
    nodes = [node for node in traced.graph.nodes if _computes(node)]
    return Count(
        len(nodes),
        sum(_flops(node) for node in nodes),
        sum(_bytes(node) for node in nodes),
        plan_memory(traced.graph).size,
    )


def _computes(node: fx.Node) -> bool:
    is_precomputed = node.meta.get("constant") or node.meta.get("prepared")
    return node.op == "call_function" and not (is_view(node) or is_getitem(node) or is_precomputed)


def _flops(node: fx.Node) -> int:
    if "linear_pointwise" in str(node.target):
        x, transposed = (one.meta["val"] for one in node.args[:2])  # type: ignore[union-attr]
        return int(2 * x.shape[0] * x.shape[1] * transposed.shape[0])
    target = aten.addmm.default if node.target == ADDMM_RELU else node.target
    formula = flop_registry.get(getattr(target, "overloadpacket", None))
    if formula is None:
        return 0
    args = fx.map_arg(node.args, lambda one: one.meta["val"])
    kwargs = {} if target is not node.target else fx.map_arg(node.kwargs, lambda one: one.meta["val"])
    return int(formula(*args, **kwargs, out_val=node.meta["val"]))


def _bytes(node: fx.Node) -> int:
    read = [value for source in node.all_input_nodes for value in tensors_of(source.meta.get("val"))]
    written = [] if returned_input(node) is not None else list(tensors_of(node.meta.get("val")))
    written += [value for target in mutated_inputs(node) for value in tensors_of(target.meta.get("val"))]
    return sum(value.numel() * value.element_size() for value in read + written)
