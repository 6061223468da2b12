"""The out= variant of an operation, which writes into given memory, and the fastest Python function that calls it.

`torch.mm(a, b, out=c)` reaches the same kernel as `torch.ops.aten.mm.out(a, b, out=c)` in half the time, and for small
tensors the overhead of the call is most of it. Operations that are not in the table are called by their overload.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import fx

from fanin.program.effects import aten

# Operations with a function in `torch` of the same name and arguments that takes `out=`.
_SHORT = frozenset(
    {
        *("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "_addmm_activation"),
        *("_softmax", "_log_softmax", "_log_softmax_backward_data", "logsumexp"),
        *(
            "exp",
            "expm1",
            "log",
            "log1p",
            "sqrt",
            "rsqrt",
            "square",
            "reciprocal",
            "tanh",
            "sigmoid",
            "erf",
            "sin",
            "cos",
        ),
        *("neg", "abs", "sign", "floor", "ceil", "logical_not", "logical_and", "logical_or"),
        *("add", "sub", "mul", "div", "pow", "maximum", "minimum", "eq", "ne", "gt", "lt", "ge", "le"),
        *("where", "clamp", "clamp_min", "clamp_max", "addcmul", "addcdiv", "lerp"),
        *("gather", "index_select", "cat", "sum", "mean", "amax", "amin", "argmax", "argmin"),
    }
)
# Their overloads whose arguments that function does not take.
_LONG = frozenset({"sum.default", "mean.default", "amax.out", "add.Scalar", "sub.Scalar", "_softmax.out"})


class OutCall:
    """How to call an operation so that it writes into given memory.

    Attributes:
        function: what to call.
        names: the keyword of each result, in order; [""] for a copy, `result.copy_(source)`.
        reduces_all: whether the function takes a list of all axes.
    """

    def __init__(self, function: Callable[..., Any], names: list[str], reduces_all: bool = False):
        self.function = function
        self.names = names
        self.reduces_all = reduces_all


def out_call(node: fx.Node) -> OutCall | None:
    """How `node` writes into given memory; None if its operation can only allocate its result."""
    target: Any = node.target
    if target in _COPYING and not node.kwargs.get("memory_format"):
        return _COPYING[target]
    if target in _SPECIAL:
        return _SPECIAL[target]
    packet = getattr(target, "overloadpacket", None)
    name = getattr(packet, "__name__", "")
    if _is_reduced_loss(node) or name.startswith(_WRONG_OUT_VARIANTS):
        return None
    key = f"{name}.{getattr(target, '_overloadname', '')}"
    found = _out_overload(target, packet)
    if found is None:
        return None
    if name in _SHORT and key not in _LONG and found.names == ["out"] and hasattr(torch, name):
        return OutCall(getattr(torch, name), ["out"])
    return found


@cache  # each program asks several times about each of its operations, and there are not many
def _out_overload(target: Any, packet: Any) -> OutCall | None:
    """The out= overload: the one with the same arguments, and further ones for the results."""
    schema = getattr(target, "_schema", None)
    if schema is None or packet is None or schema.is_mutable:
        return None
    given = [(argument.name, str(argument.type)) for argument in schema.arguments]
    for name in packet.overloads():
        other = getattr(packet, name)
        results = [a for a in other._schema.arguments if a.kwarg_only and a.alias_info and a.alias_info.is_write]
        rest = [(a.name, str(a.type)) for a in other._schema.arguments if a not in results]
        if results and rest == given and all(str(a.type) == "Tensor" for a in results):
            return OutCall(other, [a.name for a in results])
    return None


def _is_reduced_loss(node: fx.Node) -> bool:
    """Whether this is a loss reduced to one number: most out= variants first write all values into it."""
    schema = getattr(node.target, "_schema", None)
    value = node.meta.get("val")
    is_loss = schema is not None and any(argument.name == "reduction" for argument in schema.arguments)
    return is_loss and isinstance(value, torch.Tensor) and value.dim() == 0


def _copy_into(source: torch.Tensor, result: torch.Tensor) -> None:
    result.copy_(source)


class CopyCall(OutCall):
    """A copy or a cast: `result.copy_(source)`, whatever the other arguments."""


_COPYING: dict[Any, OutCall] = {
    aten._to_copy.default: CopyCall(_copy_into, [""]),
    aten.clone.default: CopyCall(_copy_into, [""]),
}
_SPECIAL: dict[Any, OutCall] = {
    aten.sum.default: OutCall(torch.sum, ["out"], reduces_all=True),
    aten.mean.default: OutCall(torch.mean, ["out"], reduces_all=True),
    aten.nll_loss.default: OutCall(getattr(torch._C._nn, "nll_loss", aten.nll_loss.out), ["out"]),
}
# Prefixes of operations whose out= variant gives other numbers than the functional one, or needs other strides.
_WRONG_OUT_VARIANTS = ("linalg_", "_linalg_", "_fft_", "native_batch_norm")
EMPTIES = frozenset(
    {aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default, aten.empty_strided.default}
)
