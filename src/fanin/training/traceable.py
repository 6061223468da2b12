"""What a traced call of a module must leave alone: a program would repeat it never, or with the same value for ever."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn

from fanin.errors import NotTraceableError
from fanin.training.watch import Watch


@contextmanager
def nothing_moves(module: nn.Module, beside: Iterable[Any] = ()) -> Iterator[None]:
    """A block that traces calls of a module: NotTraceableError if they change what it or an object in `beside` keeps in
    Python, or draw random numbers that are not torch's. Whenever the block fails, all of that is as it was."""
    before = Watch(module, beside)
    drawn, by_numpy = random.getstate(), np.random.get_state(legacy=False)
    try:
        yield
        if (moved := before.difference()) is not None:
            raise NotTraceableError(f"a call changes {moved}")
        if random.getstate() != drawn or _numbers(np.random.get_state(legacy=False)) != _numbers(by_numpy):
            raise NotTraceableError("a call draws random numbers that are not torch's")
    except Exception:
        before.restore()
        random.setstate(drawn)
        np.random.set_state(by_numpy)
        raise


def _numbers(state: object) -> str:
    """A state of numpy's global generator in words that differ once a number was drawn: its position is among them."""
    return str(state)
