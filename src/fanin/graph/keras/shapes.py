"""Spellings of functions of shapes and places."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch

from fanin.graph.keras.operation import Described
from fanin.graph.keras.spelling import SPELLINGS, Call, described, is_tensor, spells

# --- shapes -----------------------------------------------------------------------------------------------------------


@spells("reshape", "view")
def _reshape(call: Call) -> Described | None:
    shape = call.rest("shape")
    return None if shape is None else described("Reshape", call.tensor, newshape=shape)


@spells("flatten", "unflatten")
def _to_shape(call: Call) -> Described | None:
    """What comes out says it all, if one size at most is unknown."""
    shape = [-1 if size is None else size for size in call.results[0].shape]
    return described("Reshape", call.tensor, newshape=shape) if shape.count(-1) < 2 else None


@spells("squeeze")
def _squeeze(call: Call) -> Described | None:
    given = call.bound("input", "dim")
    if given is None:
        return None
    dims = given.get("dim")
    sizes = [call.tensor.shape[dim] for dim in ([dims] if isinstance(dims, int) else dims or [])]
    return described("Squeeze", call.tensor, axis=dims) if set(sizes) <= {1} else None


@spells("permute")
def _permute(call: Call) -> Described | None:
    dims = call.rest("dims")
    return None if dims is None else described("Transpose", call.tensor, axes=[dim % len(dims) for dim in dims])


@spells("t")
def _t(call: Call) -> Described | None:
    return described("Transpose", call.tensor, axes=None)


def _attribute(call: Call) -> Described | None:
    if call.args[1] == "T" and call.tensor.ndim == 2:
        return described("Transpose", call.tensor, axes=None)
    return described("Swapaxes", call.tensor, axis1=-2, axis2=-1) if call.args[1] == "mT" else None


SPELLINGS[getattr] = _attribute


@spells("flip")
def _flip(call: Call) -> Described | None:
    dims = call.rest("dims")
    return None if dims is None else described("Flip", call.tensor, axis=dims)


@spells("tile", "repeat")
def _tile(call: Call) -> Described | None:
    dims = call.rest("dims")
    return None if dims is None else described("Tile", call.tensor, repeats=dims)


@spells("repeat_interleave")
def _repeat(call: Call) -> Described | None:
    given = call.bound("input", "repeats", "dim")
    if given is None or not isinstance(given.get("repeats"), int):
        return None
    return described("Repeat", call.tensor, repeats=given["repeats"], axis=given.get("dim"))


def _split(call: Call, name: str) -> Described | None:
    """Keras takes the number of parts if they are equal, else the places between them."""
    given = call.bound("input", name, "dim")
    axis = 0 if given is None else given.get("dim", 0)
    sizes = [part.shape[axis] for part in call.results]
    if given is None or None in sizes:
        return None
    known = [size for size in sizes if size is not None]
    parts: Any = len(known) if len(set(known)) == 1 else [*accumulate(known)][:-1]
    return described("Split", call.tensor, indices_or_sections=parts, axis=axis)


spells("torch.split")(lambda call: _split(call, "split_size_or_sections"))
spells("torch.Tensor.split")(lambda call: _split(call, "split_size"))
spells("chunk")(lambda call: _split(call, "chunks"))
spells("tensor_split")(lambda call: _split(call, "indices_or_sections"))
spells("split_with_sizes")(lambda call: _split(call, "split_sizes"))


@spells("unbind")
def _unbind(call: Call) -> Described | None:
    given = call.bound("input", "dim")
    axis = None if given is None else given.get("dim", 0)
    return None if axis is None or call.tensor.shape[axis] is None else described("Unstack", call.tensor, axis=axis)


# --- parts ------------------------------------------------------------------------------------------------------------


@spells("operator.getitem", "torch.Tensor.__getitem__")
def _getitem(call: Call) -> Described | None:
    tensor, key = call.args
    key = [*key] if isinstance(key, tuple) else [key]
    if all(part is None or part is Ellipsis or type(part) is int or _is_slice(part) for part in key):
        return described("GetItem", tensor, key)
    if len(key) == 1 and is_tensor(key[0]) and key[0].dtype in (torch.int32, torch.int64):
        return described("Take", tensor, key[0], axis=0)
    lists = [place for place, part in enumerate(key) if isinstance(part, list)]
    if len(lists) != 1 or any(part != slice(None) for place, part in enumerate(key) if place != lists[0]):
        return None
    chosen = key[lists[0]]
    return described("Take", tensor, chosen, axis=lists[0]) if all(type(place) is int for place in chosen) else None


def _is_slice(part: Any) -> bool:
    ends = (part.start, part.stop, part.step) if isinstance(part, slice) else (part,)
    return isinstance(part, slice) and all(end is None or type(end) is int for end in ends)


@spells("index_select")
def _index_select(call: Call) -> Described | None:
    given = call.bound("input", "dim", "index")
    if given is None or len(given) < 3 or given["index"].ndim != 1:
        return None
    return described("Take", given["input"], given["index"], axis=given["dim"])


@spells("take_along_dim")
def _take_along_dim(call: Call) -> Described | None:
    given = call.bound("input", "indices", "dim")
    if given is None or "dim" not in given:
        return None
    return described("TakeAlongAxis", given["input"], given["indices"], axis=given["dim"])


@spells("pad")
def _pad(call: Call) -> Described | None:
    given = call.bound("input", "pad", "mode", "value")
    if given is None or given.get("mode", "constant") != "constant":
        return None
    pairs = [list(pair) for pair in zip(given["pad"][::2], given["pad"][1::2], strict=False)]
    widths = [[0, 0]] * (call.tensor.ndim - len(pairs)) + pairs[::-1]
    is_plain = all(type(width) is int and width >= 0 for pair in widths for width in pair) and not given.get("value")
    return described("Pad", call.tensor, pad_width=widths, mode="constant") if is_plain else None
