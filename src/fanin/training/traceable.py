"""What a traced call of a module must leave alone: a program would repeat it never, or with the same value for ever."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from fanin.errors import NotTraceableError
from fanin.layers.layer import Layer
from fanin.program.trace import Traced
from fanin.training.watch import Watch

_SOURCES = (random.Random, np.random.Generator, np.random.RandomState)  # of random numbers
_GLOBAL_SOURCES: list[Any] = [random.random.__self__, np.random.rand.__self__]  # type: ignore[attr-defined]


@contextmanager
def nothing_moves(module: nn.Module, beside: Iterable[Any] = ()) -> Iterator[None]:
    """A block that traces calls of a module: NotTraceableError if they change what it or an object in `beside` keeps in
    Python, or draw random numbers that are not torch's. Whenever the block fails, all of that is as it was."""
    before = Watch(module, beside)
    for one in before.values():
        if hasattr(type(one), "__next__"):
            raise NotTraceableError(f"a call reads a {type(one).__name__}, which may give something else each time")
    drawn_from = [*_GLOBAL_SOURCES, *(one for one in before.values() if type(one) in _SOURCES)]
    sources = [(one, pickle.dumps(one)) for one in drawn_from]
    kept = [(one, one._version, one.detach().clone()) for one in before.tensors() if not one.is_inference()]
    try:
        yield
        if before.difference() is not None:
            raise NotTraceableError("a call changes what Python keeps")
        if any(one._version != version for one, version, _ in kept):
            raise NotTraceableError("a call changes a tensor in place that is no buffer")
        if any(pickle.dumps(source) != state for source, state in sources):
            raise NotTraceableError("a call draws random numbers that are not torch's")
    except Exception as error:
        moved = before.difference() if isinstance(error, NotTraceableError) else None
        before.restore()
        for source, state in sources:
            _put_back(source, pickle.loads(state))
        with torch.no_grad():
            for one, version, value in kept:
                if one._version != version:
                    one.copy_(value)
        if moved is not None:  # which says more
            raise NotTraceableError(f"a call changes {moved}") from error
        raise


def keeps_nothing(module: nn.Module, traced: Traced) -> None:
    """NotTraceableError if calls of a module keep a fake tensor, which would be read in place of a real one.

    fanin's layers note their losses and masks, which the next call replaces: modules with such are not looked at.
    """
    kept = [] if any(isinstance(part, Layer) for part in module.modules()) else traced.kept()
    traced.made.clear()
    for one in kept:
        raise NotTraceableError(
            f"a call keeps a tensor of shape {tuple(one.shape)} that it made, in a cache or an object; a cache may be "
            "filled by one call before"
        )


def _put_back(source: Any, before: Any) -> None:
    """Bring a source of random numbers to the state of its copy."""
    if isinstance(source, np.random.Generator):
        source.bit_generator.state = before.bit_generator.state
    elif isinstance(source, np.random.RandomState):
        source.set_state(before.get_state())
    else:
        source.setstate(before.getstate())
