"""Spellings of functions of values: extremes, statistics, functions of elements."""

from __future__ import annotations

import torch

from fanin.graph.keras.operation import Described
from fanin.graph.keras.spelling import Call, described, is_number, is_tensor, spells

# --- the largest and the smallest -------------------------------------------------------------------------------------


def _extreme(call: Call, reduced: str, of_two: str) -> Described | None:
    given = call.bound("input", "dim", "keepdim")
    if given is None or is_tensor(given.get("dim")):
        pair = call.bound("input", "other")
        return None if pair is None or len(pair) < 2 else described(of_two, *pair.values())
    if "dim" not in given:
        return described(reduced, call.tensor, axis=None, keepdims=False)
    if set(call.used) - {0}:  # the positions, which Keras's operation does not give
        return None
    return described(reduced, call.tensor, axis=given["dim"], keepdims=given.get("keepdim", False))


spells("max")(lambda call: _extreme(call, "Max", "Maximum"))
spells("min")(lambda call: _extreme(call, "Min", "Minimum"))


@spells("clamp", "clip")
def _clamp(call: Call) -> Described | None:
    given = call.bound("input", "min", "max")
    if given is None:
        return None
    low, high = given.get("min"), given.get("max")
    if is_number(low) and is_number(high):
        return described("Clip", call.tensor, x_min=low, x_max=high)
    if high is None:
        return described("Maximum", call.tensor, low)
    return described("Minimum", call.tensor, high) if low is None else None


@spells("clamp_min")
def _clamp_min(call: Call) -> Described | None:
    given = call.bound("input", "min")
    return None if given is None else described("Maximum", *given.values())


@spells("clamp_max")
def _clamp_max(call: Call) -> Described | None:
    given = call.bound("input", "max")
    return None if given is None else described("Minimum", *given.values())


@spells("hardtanh")
def _hardtanh(call: Call) -> Described | None:
    given = call.bound("input", "min_val", "max_val")
    if given is None:
        return None
    low, high = given.get("min_val", -1.0), given.get("max_val", 1.0)
    is_plain = (low, high) == (-1.0, 1.0)
    return described("HardTanh", call.tensor) if is_plain else described("Clip", call.tensor, x_min=low, x_max=high)


# --- statistics -------------------------------------------------------------------------------------------------------


def _spread(call: Call, name: str) -> Described | None:
    """Keras divides by the number of values, torch by one less unless told otherwise."""
    given = call.bound("input", "dim", "unbiased", "keepdim", "correction")
    if given is None or isinstance(given.get("dim"), bool):
        return None
    if given.get("correction", 0 if given.get("unbiased") is False else 1) != 0:
        return None
    return described(name, call.tensor, axis=given.get("dim"), keepdims=given.get("keepdim", False))


spells("std")(lambda call: _spread(call, "Std"))
spells("var")(lambda call: _spread(call, "Var"))


@spells("norm", "torch.linalg.vector_norm")
def _norm(call: Call) -> Described | None:
    given = call.bound("input", "p", "dim", "keepdim") or call.bound("x", "ord", "dim", "keepdim")
    if given is None:
        return None
    order, axis = given.get("p", given.get("ord", 2)), given.get("dim")
    order = None if order in ("fro", 2) else order
    if not isinstance(axis, int) and (order is not None or (axis is not None and len(axis) > 2)):
        return None
    return described("Norm", call.tensor, ord=order, axis=axis, keepdims=given.get("keepdim", False))


@spells("torch.linalg.norm")
def _linalg_norm(call: Call) -> Described | None:
    given = call.bound("input", "ord", "dim", "keepdim")
    if given is None:
        return None
    options = {"ord": given.get("ord"), "axis": given.get("dim"), "keepdims": given.get("keepdim", False)}
    return described("Norm", call.tensor, **options)


@spells("normalize")
def _normalize(call: Call) -> Described | None:
    given = call.bound("input", "p", "dim", "eps")
    if given is None or given.get("p", 2.0) not in range(1, 100):
        return None
    options = {"axis": given.get("dim", 1), "order": int(given.get("p", 2)), "epsilon": given.get("eps", 1e-12)}
    return described("Normalize", call.tensor, **options)


@spells("sort")
def _sort(call: Call) -> Described | None:
    given = call.bound("input", "dim")
    return None if given is None or set(call.used) - {0} else described("Sort", call.tensor, axis=given.get("dim", -1))


@spells("argsort")
def _argsort(call: Call) -> Described | None:
    given = call.bound("input", "dim", "descending", "stable")
    if given is None or given.get("descending"):
        return None
    return described("Argsort", call.tensor, axis=given.get("dim", -1))


@spells("topk")
def _topk(call: Call) -> Described | None:
    given = call.bound("input", "k", "dim", "largest", "sorted")
    if given is None or given.get("dim", -1) not in (-1, call.tensor.ndim - 1) or not given.get("largest", True):
        return None
    return described("TopK", call.tensor, k=given.get("k"), sorted=given.get("sorted", True))


# --- functions of elements --------------------------------------------------------------------------------------------


@spells("gelu")
def _gelu(call: Call) -> Described | None:
    given = call.bound("input", "approximate")
    if given is None:
        return None
    return described("Gelu", call.tensor, approximate=given.get("approximate", "none") == "tanh")


@spells("softplus")
def _softplus(call: Call) -> Described | None:
    given = call.bound("input", "beta", "threshold")
    is_plain = given is not None and given.get("beta", 1) == 1 and given.get("threshold", 20) == 20
    return described("Softplus", call.tensor) if is_plain else None


def _bitwise(call: Call, name: str) -> Described | None:
    """For truth values alone: Keras's operations on bits are others."""
    given = call.bound("input", "other")
    if given is None or any(getattr(value, "dtype", type(value)) not in (torch.bool, bool) for value in given.values()):
        return None
    return described(name, *given.values())


spells("bitwise_and", "torch.Tensor.__and__")(lambda call: _bitwise(call, "LogicalAnd"))
spells("bitwise_or", "torch.Tensor.__or__")(lambda call: _bitwise(call, "LogicalOr"))
spells("bitwise_xor", "torch.Tensor.__xor__")(lambda call: _bitwise(call, "LogicalXor"))
spells("bitwise_not")(lambda call: _bitwise(call, "LogicalNot"))


@spells("torch.where")
def _where(call: Call) -> Described | None:
    given = call.bound("condition", "input", "other")
    return None if given is None or len(given) < 3 else described("Where", *given.values())


@spells("torch.Tensor.where")
def _where_method(call: Call) -> Described | None:
    given = call.bound("self", "condition", "other")
    if given is None or len(given) < 3:
        return None
    return described("Where", given["condition"], given["self"], given["other"])


@spells("masked_fill")
def _masked_fill(call: Call) -> Described | None:
    given = call.bound("input", "mask", "value")
    return (
        None if given is None or len(given) < 3 else described("Where", given["mask"], given["value"], given["input"])
    )


@spells("to", "type", "bfloat16", "bool", "byte", "char", "double", "float", "half", "int", "long", "short")
def _cast(call: Call) -> Described | None:
    given = call.bound("input", "dtype")
    if given is None or not isinstance(given.get("dtype", torch.bool), torch.dtype):
        return None
    return described("Cast", call.tensor, dtype=call.results[0].dtype)


@spells("one_hot")
def _one_hot(call: Call) -> Described | None:
    given = call.bound("input", "num_classes")
    if given is None or not isinstance(given.get("num_classes"), int):
        return None
    return described("OneHot", call.tensor, num_classes=given["num_classes"], axis=-1, dtype="int64")


@spells("torch.einsum")
def _einsum(call: Call) -> Described | None:
    if call.kwargs or not isinstance(call.tensor, str) or not all(map(is_tensor, call.args[1:])):
        return None
    return described("Einsum", *call.args[1:], subscripts=call.tensor)
