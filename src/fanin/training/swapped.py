"""Other tensors as a module's parameters and buffers, inside a block.

Unlike `torch.func.functional_call`, it also restores a part that has two names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from fanin.errors import NotTraceableError

Entry = tuple[dict[str, Any], str, Tensor]


@contextmanager
def swapped(module: nn.Module, replacements: Mapping[int, Tensor]) -> Iterator[None]:
    """Inside the block, the module has `replacements[id(t)]` in place of each parameter or buffer t.

    A new value that the block assigns to a buffer (`self.mean = ...`) is copied into its replacement at the end:
    NotTraceableError where that is not possible, as for another shape.
    """
    entries = [
        (cast(dict[str, Any], registry), name, tensor)
        for part in module.modules()
        for registry in (part._parameters, part._buffers)
        for name, tensor in registry.items()
        if tensor is not None and id(tensor) in replacements
    ]
    for registry, name, tensor in entries:
        registry[name] = replacements[id(tensor)]
    try:
        yield
        _write_assigned(entries, replacements)
    finally:
        for registry, name, tensor in entries:
            registry[name] = tensor


def _write_assigned(entries: list[Entry], replacements: Mapping[int, Tensor]) -> None:
    """Copy assigned values into the replacements; aliased ones are cloned first, as buffers may have been swapped."""
    owners = [id(tensor) for _, _, tensor in entries]
    memory = {one.untyped_storage()._cdata for one in replacements.values() if one.layout == torch.strided}
    assigned: list[tuple[Tensor, Tensor]] = []
    for registry, name, tensor in entries:
        replacement, value = replacements[id(tensor)], registry.get(name)
        if value is replacement:
            continue
        is_one_buffer = not replacement.requires_grad and owners.count(id(tensor)) == 1
        if (
            not isinstance(value, Tensor)
            or value.requires_grad
            or not is_one_buffer
            or not _are_alike(value, replacement)
        ):
            raise NotTraceableError(f"a call puts something else in the place of {name!r}")
        assigned.append((replacement, value.clone() if value.untyped_storage()._cdata in memory else value))
    with torch.no_grad():
        for replacement, value in assigned:
            replacement.copy_(value)


def _are_alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.layout == other.layout == torch.strided
