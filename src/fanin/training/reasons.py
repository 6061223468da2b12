"""Why a step runs eagerly: in words, with the layer and the line of the user's code."""

from __future__ import annotations

import inspect
import traceback
import warnings

from torch import nn


def reason_for(error: Exception) -> str:
    """What went wrong, in which layer, and at which line of the user's code."""
    layer, place = "", ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in ("torch", "fanin", "contextlib") or frame.f_code.co_filename.startswith("<"):
            continue
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            layer = f"layer {getattr(owner, 'name', '') or type(owner).__name__!r} "
        place = f" (line {line} of {frame.f_code.co_filename})"
    text = str(error).strip().splitlines()
    return f"{layer}cannot be compiled{place}: {type(error).__name__}: {text[0] if text else ''}"


def warn_of(reason: str, advice: str) -> None:
    """Warn that a step runs eagerly, at the line of the user's code that trains."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "fanin":
        level, frame = level + 1, frame.f_back
    text = f"This step runs eagerly, with the same results: {reason}. {advice}".rstrip()
    warnings.warn(text, stacklevel=level - 1 if frame is None else level)
