"""Other tensors in a module's places, for as long as a block runs.

As `torch.func.functional_call`, which leaves the other tensors in a part that is reached by two names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn


@contextmanager
def swapped(module: nn.Module, stands_in: Mapping[int, Tensor]) -> Iterator[None]:
    """Inside the block, `stands_in[id(t)]` stands wherever the module has the parameter or buffer t."""
    places = [
        (cast(dict[str, Any], registry), name, tensor)
        for part in module.modules()
        for registry in (part._parameters, part._buffers)
        for name, tensor in registry.items()
        if tensor is not None and id(tensor) in stands_in
    ]
    for registry, name, tensor in places:
        registry[name] = stands_in[id(tensor)]
    try:
        yield
    finally:
        for registry, name, tensor in places:
            registry[name] = tensor
