"""Generated lines that call numpy run without its floating-point warnings, as torch gives none."""

from __future__ import annotations

from typing import Any

import numpy as np

# What `np.errstate(all="ignore")` sets, without its Python, which takes a microsecond. Only numpy 2 has it.
_umath: Any = getattr(getattr(np, "_core", None), "umath", None)
_HANDLING: Any = getattr(_umath, "_extobj_contextvar", None)

# Names for these lines, and the only builtin of generated code: torch and numpy import parts of themselves late.
NAMES: dict[str, Any] = {"__builtins__": {"__import__": __import__}, "errstate": np.errstate}
if _HANDLING is not None:
    NAMES |= {"handle": _HANDLING.set, "restore": _HANDLING.reset, "silent": _umath._make_extobj(all="ignore")}


def without_warnings(lines: list[str]) -> list[str]:
    """These lines in a block that silences the warnings; it uses names from `NAMES`."""
    body = [f"    {line}" for line in lines]
    if _HANDLING is None:
        return ["with errstate(all='ignore'):", *body]
    return ["before = handle(silent)", "try:", *body, "finally:", "    restore(before)"]
