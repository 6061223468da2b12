"""Parts of a model in another state for a while: in eval mode, or with buffers that a trial may change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

_MOST_NUMBERS = 1 << 22  # of a buffer that is worth a copy: counts and statistics are small


@contextmanager
def in_eval_mode(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Each of these in eval mode inside the block, and as it was after it; the parts of each stay as they are."""
    trained = [module for module in modules if module.training]
    for module in trained:
        module.training = False
    try:
        yield
    finally:
        for module in trained:
            module.training = True


@contextmanager
def state_kept(module: nn.Module) -> Iterator[None]:
    """Buffers that are changed in place inside the block are as they were after it: trials of calls do not count."""
    buffers = (one for one in module.buffers() if not is_lazy(one) and not one.is_meta and not one.is_inference())
    kept = [(one, one._version, one.detach().clone()) for one in buffers if one.numel() <= _MOST_NUMBERS]
    try:
        yield
    finally:
        with torch.no_grad():
            for one, version, value in kept:
                if one._version != version:
                    one.copy_(value)
