"""Adding an adapter to the kernel itself, for predictions that cost what those of the base cost, and taking it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from fanin.adapters.targets import adapted, having
from fanin.layers.base.adapted import Adapted


def merge(module: nn.Module, name: str, keep_base: bool = True) -> None:
    """Add an adapter's scale A @ B to the kernels of all layers that have it, in place.

    The module then predicts what it predicts with the adapter active, at the cost of the base alone; in float32 the two
    agree to about 1e-5 of the largest product, in a kernel of 16 bits the sum is rounded to 16 bits. Nothing trains
    until `unmerge`.

    Args:
        module: a model with the adapter.
        name: its name.
        keep_base: keep a copy of each kernel that is changed, so that `unmerge` can put it back bit for bit; it takes
            as much memory again as these kernels. Without it the kernel stays changed for good: `remove` then takes
            the adapter's weights away.

    The copies are buffers beside the `state_dict`. Archives and `.weights.h5` hold the base itself and the adapter also
    then; a `state_dict`, and so `.safetensors`, holds what is stored, the merged kernel. Raises ValueError, and changes
    nothing, if no layer has the adapter, if one is merged already, or if a kernel belongs to several modules (tied
    weights).
    """
    layers = having(module, name)
    _refuse_merged(module)
    owners = Counter(id(p) for part in module.modules() for p in part._parameters.values() if p is not None)
    tied = [
        path for path, layer in layers.items() if any(owners[id(getattr(layer, n))] > 1 for n in layer._base_names())
    ]
    if tied:
        raise ValueError(
            f"The kernel at {', '.join(map(repr, tied))} belongs to another module too: merge would change it."
        )
    done: list[tuple[Adapted, str | None]] = []
    try:
        for layer in layers.values():
            active = layer.active_adapter
            layer._merge(name)
            done.append((layer, active))
    except BaseException:
        for layer, active in done:
            layer._unmerge()
            layer._activate(active)
        raise
    for layer in adapted(module).values():
        if layer._low_rank().merged is None:
            layer._activate(None)
        elif not keep_base:
            layer._drop_base()


def unmerge(module: nn.Module) -> None:
    """Put the kernels back as they were before `merge`, bit for bit; the adapter that was merged acts again.

    ValueError, nothing changed, if nothing is merged, or if it was merged with keep_base=False.
    """
    layers = {path: layer for path, layer in adapted(module).items() if layer._low_rank().merged is not None}
    if not layers:
        raise ValueError(f"{type(module).__name__} has no merged adapter.")
    gone = [path for path, layer in layers.items() if not layer._keeps_base()]
    if gone:
        raise ValueError(
            f"The base at {', '.join(map(repr, gone))} was not kept (keep_base=False), so it cannot return."
        )
    for layer in layers.values():
        name = layer._low_rank().merged
        layer._unmerge()
        layer._activate(name)


@contextmanager
def merged(module: nn.Module, name: str) -> Iterator[None]:
    """Inside the block the adapter is merged; after it, all is as before, also which adapters act.

    >>> import torch, fanin
    >>> model, x = torch.nn.Sequential(torch.nn.Linear(4, 2)), torch.ones(1, 4)
    >>> _ = fanin.adapters.add(model, "ann", rank=2, b_initializer="ones")
    >>> adapted = model(x)
    >>> with fanin.adapters.merged(model, "ann"):
    ...     bool(torch.allclose(model(x), adapted, atol=1e-5))
    True
    """
    before = {path: layer.active_adapter for path, layer in adapted(module).items()}
    merge(module, name)
    try:
        yield
    finally:
        unmerge(module)
        for path, layer in adapted(module).items():
            layer._activate(before[path])


def _refuse_merged(module: nn.Module) -> None:
    for path, layer in adapted(module).items():
        if layer._low_rank().merged is not None:
            raise ValueError(f"The adapter {layer._low_rank().merged!r} is merged at {path!r} already: unmerge first.")
