"""Why a step runs eagerly: in words, with the layer and the line of the user's code."""

from __future__ import annotations

import inspect
import traceback
import warnings

from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException


def reason_for(error: Exception) -> str:
    """A sentence: in which layer and at which line of the user's code tracing failed, and why."""
    user_layer, layer, place = "", "", ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "")
        is_user_code = name.partition(".")[0] not in ("torch", "fanin", "contextlib")
        owner = frame.f_locals.get("self")
        is_call = frame.f_code.co_name in ("call", "forward") and not name.startswith("fanin.training")
        if isinstance(owner, nn.Module) and (is_user_code or is_call):
            layer = f"layer {getattr(owner, 'name', '') or type(owner).__name__!r} "
            user_layer = layer if is_user_code else user_layer
        if is_user_code and not frame.f_code.co_filename.startswith("<"):
            place = f" (line {line} of {frame.f_code.co_filename})"
    return f"{user_layer or layer}cannot be compiled{place}: {_in_words(error)}"


def _in_words(error: Exception) -> str:
    """The first line of a message; torch's own about values and shapes name operations that the user does not know."""
    text = str(error).strip().splitlines()
    if isinstance(error, DataDependentOutputException):
        return "it asks a tensor for its value, as float(x), x.item() and `if x > 0:` do"
    if isinstance(error, DynamicOutputShapeException):
        return f"the shape of a result depends on values ({text[0] if text else ''})"
    return f"{type(error).__name__}: {text[0] if text else ''}"


def warn_of_fallback(reason: str, advice: str) -> None:
    """Warn that a step runs eagerly, at the line of the user's code that trains."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "fanin":
        level, frame = level + 1, frame.f_back
    text = f"This step runs eagerly, with the same results: {reason}. {advice}".rstrip()
    warnings.warn(text, stacklevel=level - 1 if frame is None else level)
