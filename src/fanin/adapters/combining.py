"""Other strengths of an adapter, and sums of several as a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from fanin import arguments
from fanin.adapters.adding import attach_all
from fanin.adapters.targets import having
from fanin.kernels import Adapter


def scale(module: nn.Module, name: str, factor: float) -> None:
    """Multiply what an adapter adds by `factor`, in place of the factor it had: 0 silences it, 1 is as it was trained.

    ValueError, nothing changed, if no layer has it, or for a factor that is no finite number.

    >>> import torch, fanin
    >>> layer = torch.nn.Linear(4, 2)
    >>> _ = fanin.adapters.add(layer, "ann", rank=2, alpha=4)
    >>> fanin.adapters.scale(layer, "ann", 0.5)
    >>> layer.adapters["ann"].scale
    1.0
    """
    layers = having(module, name)
    factor = arguments.finite(f"Adapter {name!r}: factor", factor)
    merged = [path for path, layer in layers.items() if layer._low_rank().merged == name]
    if merged:
        raise ValueError(f"The adapter {name!r} is merged at {', '.join(map(repr, merged))}: unmerge first.")
    for layer in layers.values():
        scheme = layer._low_rank()
        layer.scheme = scheme.with_changed(replace(scheme.adapter(name), factor=factor))


def combine(module: nn.Module, new_name: str, weights: Mapping[str, float]) -> None:
    """Make a new adapter that adds the weighted sum of what others add: sum over n of weights[n] scale_n A_n @ B_n.

    It is exact: the pairs are stacked, A = [A_1 A_2 ...], B = [w_1 scale_1 B_1; w_2 scale_2 B_2; ...], so the rank is
    the sum of the ranks, which may differ by layer. It does not act before `set_active`; the others stay.

    Args:
        module: a model with these adapters.
        new_name: the name of the sum.
        weights: name -> weight, of any sign.

    Raises ValueError, and changes nothing, for names that no layer has and one that is taken; TypeError for weights
    without names.

    >>> import torch, fanin
    >>> layer = torch.nn.Linear(4, 2)
    >>> _ = fanin.adapters.add(layer, "ann", rank=2), fanin.adapters.add(layer, "bob", rank=3)
    >>> fanin.adapters.combine(layer, "both", {"ann": 0.5, "bob": 0.5})
    >>> layer.adapters["both"].rank
    5
    """
    if not isinstance(weights, Mapping):
        raise TypeError(f"combine: weights is a dict, name -> weight, found {weights!r}.")
    if not weights:
        raise ValueError(f"combine: {new_name!r} needs at least one adapter to be made of.")
    factors = {name: arguments.finite(f"combine: the weight of {name!r}", weight) for name, weight in weights.items()}
    layers = {path: layer for name in factors for path, layer in having(module, name).items()}
    values = {}
    made = {}
    with torch.no_grad():
        for path, layer in layers.items():
            scheme = layer._low_rank()
            parts = [(scheme.adapter(name), weight) for name, weight in factors.items() if scheme.has(name)]
            pairs = [[getattr(layer, tensor) for tensor in scheme.pair_names(each.name)] for each, _ in parts]
            scaled = [weight * each.scale * b for (each, weight), (_, b) in zip(parts, pairs, strict=True)]
            values[path] = torch.cat([a for a, _ in pairs], 1), torch.cat(scaled, 0)
            made[path] = Adapter(new_name, sum(each.rank for each, _ in parts))
    attach_all(module, made)
    with torch.no_grad():
        for path, pair in values.items():
            for tensor, value in zip(layers[path]._low_rank().pair_names(new_name), pair, strict=True):
                getattr(layers[path], tensor).copy_(value)
