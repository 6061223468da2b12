"""The global settings, as Keras has them: `floatx`, `epsilon` and the default dtype policy."""

from __future__ import annotations

import gc
import threading
from typing import Any

from fanin.dtypes import FLOATS, DTypePolicy, as_policy
from fanin.errors import nearest

_floatx = "float32"
_epsilon = 1e-7
_policy: DTypePolicy | None = None
_names: dict[str, int] = {}
_names_lock = threading.Lock()


def backend() -> str:
    """Always "torch": what Keras's scripts ask for to choose between libraries."""
    return "torch"


def floatx() -> str:
    """The default float dtype, by name: "float32" unless set."""
    return _floatx


def set_floatx(value: str) -> None:
    """Set the default float dtype: float16, bfloat16, float32 or float64. Another name is a ValueError."""
    global _floatx
    if value not in FLOATS:
        raise ValueError(f"Unknown floatx {value!r}.{nearest(value, FLOATS)}")
    _floatx = value


def epsilon() -> float:
    """The small number that keeps divisions and logarithms finite: 1e-7 unless set."""
    return _epsilon


def set_epsilon(value: float) -> None:
    """Set the number that `epsilon()` returns; it must be positive."""
    global _epsilon
    if not value > 0:
        raise ValueError(f"epsilon must be a positive number, found {value!r}.")
    _epsilon = float(value)


def dtype_policy() -> DTypePolicy:
    """The policy of layers that are given no `dtype`: that of `set_dtype_policy`, else `floatx()`."""
    return _policy if _policy is not None else DTypePolicy(_floatx)


def set_dtype_policy(policy: Any) -> None:
    """Set the default policy, by name, policy or dtype; `None` goes back to `floatx()`."""
    global _policy
    _policy = None if policy is None else as_policy(policy)


def unique_name(prefix: str) -> str:
    """A name that this process has not given out before: "dense", then "dense_1", "dense_2", ..."""
    with _names_lock:
        count = _names.get(prefix, 0)
        name = prefix if count == 0 else f"{prefix}_{count}"
        while count and name in _names:  # given out under a prefix of its own
            count += 1
            name = f"{prefix}_{count}"
        _names[prefix] = count + 1
        _names.setdefault(name, 1)
    return name


def clear_session(free_memory: bool = True) -> None:
    """Start automatic names again from the first one, and forget the default dtype policy, as Keras does.

    With `free_memory`, Python's garbage is collected too; dropped models are free without it.
    """
    set_dtype_policy(None)
    with _names_lock:
        _names.clear()
    if free_memory:
        gc.collect()
