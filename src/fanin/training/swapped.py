"""Other tensors in a module's places, for as long as a block runs.

As `torch.func.functional_call`, which leaves the other tensors in a part that is reached by two names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from fanin.errors import NotTraceableError

Place = tuple[dict[str, Any], str, Tensor]


@contextmanager
def swapped(module: nn.Module, stands_in: Mapping[int, Tensor]) -> Iterator[None]:
    """Inside the block, `stands_in[id(t)]` stands wherever the module has the parameter or buffer t.

    A buffer that the block assigns anew (`self.mean = ...`) is written into its stand-in at the end: NotTraceableError
    where that is not the same, as for another shape.
    """
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
        _take_over(places, stands_in)
    finally:
        for registry, name, tensor in places:
            registry[name] = tensor


def _take_over(places: list[Place], stands_in: Mapping[int, Tensor]) -> None:
    """Write what was assigned into the stand-ins; all values are taken first, as buffers may have changed places."""
    owners = [id(tensor) for _, _, tensor in places]
    memory = {one.untyped_storage()._cdata for one in stands_in.values() if one.layout == torch.strided}
    assigned: list[tuple[Tensor, Tensor]] = []
    for registry, name, tensor in places:
        stand_in, value = stands_in[id(tensor)], registry.get(name)
        if value is stand_in:
            continue
        is_one_buffer = not stand_in.requires_grad and owners.count(id(tensor)) == 1
        if not isinstance(value, Tensor) or value.requires_grad or not is_one_buffer or not _are_alike(value, stand_in):
            raise NotTraceableError(f"a call puts something else in the place of {name!r}")
        assigned.append((stand_in, value.clone() if value.untyped_storage()._cdata in memory else value))
    with torch.no_grad():
        for stand_in, value in assigned:
            stand_in.copy_(value)


def _are_alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.layout == other.layout == torch.strided
