"""Small products of half-precision numbers are computed in float32, which is faster, and rounded once.

A product of bfloat16 costs oneDNN some 15 microseconds before its first multiplication. Measured on two cores of an AMD
EPYC, in microseconds, float32 and bfloat16: (32, 128) @ (128, 128) 10 and 17, (32, 784) @ (784, 128) 43 and 31.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from fanin.program.effects import Mutations, aten, is_view
from fanin.program.matmul import PRODUCTS, multiplications
from fanin.program.passes.rewrite import declare, replace

_LARGEST = 2**19  # multiplications
_HALVES = (torch.bfloat16, torch.float16)


def widen_small_products(graph: fx.Graph) -> None:
    """mm(x, w) of halves -> half(mm(float(x), float(w))); float(half(x)) is x, where x was float32 before."""
    mutations = Mutations(graph)
    outputs = set(graph.output_node().args[0])  # type: ignore[arg-type]
    widened: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if node.target not in PRODUCTS or node.kwargs or mutations.is_mutated(node) or not _is_small(node):
            continue
        value = node.meta["val"]
        with graph.inserting_before(node):
            factors = tuple(_widened(graph, mutations, widened, one, node) for one in node.args)
            product = graph.call_function(node.target, factors)
            narrow = graph.call_function(aten._to_copy.default, (product,), {"dtype": value.dtype})
        declare(product, _as_float(value))
        declare(narrow, value)
        for user in list(node.users):
            if user not in outputs and not mutations.is_mutated(user) and _is_cast(user) and _is_float(user):
                replace(user, product)
        node.replace_all_uses_with(narrow)
        graph.erase_node(node)


def _widened(
    graph: fx.Graph, mutations: Mutations, widened: dict[fx.Node, fx.Node], one: Any, reader: fx.Node
) -> fx.Node:
    """A value in float32, for `reader`: the one that it was cast from, if that is still unchanged, else a cast."""
    if one in widened:
        return widened[one]
    if _is_cast(one) and not mutations.is_mutated(one):
        source = one.args[0]
        is_same = _is_float(source) and source.meta["val"].stride() == one.meta["val"].stride()
        is_new = one not in mutations.position  # added by this pass, after a product that nobody mutates
        if is_same and (is_new or not mutations.is_mutated_between(source, one, reader)):
            return source  # type: ignore[no-any-return]
    if is_view(one) and isinstance(one.meta["val"], Tensor) and [*one.all_input_nodes] == [one.args[0]]:
        base = _widened(graph, mutations, widened, one.args[0], reader)
        found = graph.call_function(one.target, (base, *one.args[1:]), one.kwargs)
    else:
        found = graph.call_function(aten._to_copy.default, (one,), {"dtype": torch.float32})
    declare(found, _as_float(one.meta["val"]))
    if not mutations.is_mutated(one):
        widened[one] = found
    return found


def _is_small(node: fx.Node) -> bool:
    value = node.meta["val"]
    return value.dtype in _HALVES and value.device.type == "cpu" and 0 < multiplications(node) <= _LARGEST


def _is_cast(node: Any) -> bool:
    if node.target != aten._to_copy.default or not set(node.kwargs) <= {"dtype", "layout", "device"}:
        return False
    return bool(node.meta["val"].device == node.args[0].meta["val"].device)


def _is_float(node: fx.Node) -> bool:
    value = node.meta["val"]
    return isinstance(value, Tensor) and value.dtype == torch.float32


def _as_float(value: Any) -> Any:
    """A fake tensor of the same layout in float32."""
    with value.fake_mode:
        return torch.empty_strided(value.shape, value.stride(), dtype=torch.float32, device=value.device)
