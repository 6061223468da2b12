"""Constraints and updates in a plain PyTorch loop: they run by themselves after each `optimizer.step()`."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

from fanin import constraints
from fanin.layers.base.ledger import Ledger, run_updates

_attached: weakref.WeakKeyDictionary[torch.optim.Optimizer, list[tuple[weakref.ref[nn.Module], Any]]] = (
    weakref.WeakKeyDictionary()
)


def attach(optimizer: torch.optim.Optimizer, module: nn.Module) -> Any:
    """After each `optimizer.step()`, apply the module's constraints and run its layers' updates.

    Args:
        optimizer: any torch.optim optimizer.
        module: any module with constraints, from `fanin.constrain` or from fanin layers.

    Returns a handle; `handle.remove()` ends it. Attaching the same pair again returns the same handle.

    >>> import fanin
    >>> layer = fanin.layers.Dense(2, kernel_constraint="non_neg", input_shape=(3,))
    >>> _ = layer(torch.ones(1, 3))
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    >>> _ = fanin.attach(optimizer, layer)
    >>> layer(torch.ones(1, 3)).sum().backward()
    >>> optimizer.step()
    >>> bool((layer.kernel >= 0).all())
    True
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"attach: expected a torch.optim optimizer, found {optimizer!r}.")
    if not isinstance(module, nn.Module):
        raise TypeError(f"attach: expected a torch.nn.Module, found {module!r}.")
    known = _attached.setdefault(optimizer, [])
    for reference, handle in known:
        if reference() is module and handle.id in handle.hooks_dict_ref():
            return handle
    target = weakref.ref(module)  # a dropped model must not live on in its optimizer

    def after_step(*_: Any) -> None:
        found = target()
        if found is not None:
            constraints.apply(found)
            run_updates(_updates(found))

    handle = optimizer.register_step_post_hook(after_step)
    known.append((target, handle))
    return handle


def _updates(module: nn.Module) -> list[Any]:
    if isinstance(module, Ledger):
        return module.updates
    return [update for child in module.children() for update in _updates(child)]
