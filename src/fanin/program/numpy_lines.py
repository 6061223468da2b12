"""Source lines that call numpy on the memory of tensors, for operations that passes mark with `meta["by_numpy"]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx

from fanin.program.matmul import ADDMM_RELU
from fanin.program.passes.small_products import pieces
from fanin.program.passes.step_counters import COUNTING

Array = Callable[[Any], str | None]  # value -> its name as an array; None if its memory is not known before the run
Bind = Callable[[Any, str], str]  # object, title -> its name
_ZERO = np.zeros((), np.float32)


def lines_of(node: fx.Node, array: Array, bind: Bind) -> list[str] | None:
    """The lines of a marked operation; None where the memory of a value is not known before the run."""
    return _count(node, array, bind) if node.target in COUNTING else _product(node, array, bind)


def _product(node: fx.Node, array: Array, bind: Bind) -> list[str] | None:
    """A product, in pieces of rows where it is too large for one thread."""
    arrays = [array(one) for one in (*node.args, node)]
    if None in arrays:
        return None
    *bias, x, kernel, out = arrays
    dot, parts = bind(np.dot, "dot"), pieces(node)
    rows = [f"[{one.start}:{one.stop}]" for one in parts] if len(parts) > 1 else [""]
    lines = [f"{dot}({x}{part}, {kernel}, {out}{part})" for part in rows]
    lines += [f"{bind(np.add, 'add')}({out}, {one}, {out})" for one in bias]
    if node.target == ADDMM_RELU:
        lines.append(f"{bind(np.maximum, 'maximum')}({out}, {bind(_ZERO, 'zero')}, out={out})")
    return lines


def _count(node: fx.Node, array: Array, bind: Bind) -> list[str] | None:
    """A number added to each of some counters."""
    counters: Any = node.args[0]
    arrays = [array(one) for one in counters]
    if None in arrays:
        return None
    step = bind(np.asarray(node.args[1], np.float32), "step")
    return [f"{bind(np.add, 'add')}({one}, {step}, {one})" for one in arrays]
