"""Adding adapters to a model, choosing the one that acts, and taking them away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from fanin import initializers
from fanin.adapters.linear import adapt, keep_in_sight, restore
from fanin.adapters.report import Report, report
from fanin.adapters.targets import Target, adaptable, adapted, chosen, having
from fanin.kernels import Adapter
from fanin.layers.base.adapted import Adapted
from fanin.layers.base.frozen import hold, release


def add(
    module: nn.Module,
    name: str,
    rank: int | Mapping[str, int],
    alpha: float | None = None,
    dropout: float = 0.0,
    target: Target | None = None,
    rslora: bool = False,
    a_initializer: Any = "he_uniform",
    b_initializer: Any = "zeros",
) -> Report:
    """Add an adapter to the layers of a model and let it act: from now on it alone trains.

    output = layer(x) + scale (x @ A) @ B, with A (I, R) and B (R, U) in float32, parameters of the layer.

    Args:
        module: any model or layer, its layers built. Dense, Embedding and `torch.nn.Linear` itself take adapters.
        name: letters, digits and underscores; the weights are `<name>_kernel_a`, `<name>_kernel_b` (in an Embedding
            `<name>_embeddings_a`, in a Linear `<name>_weight_a`).
        rank: R, or pattern -> R, as {"*.up": 16, "head": 4}; the last pattern that matches holds.
        alpha: scale = alpha / R; default R, so that the scale is 1.
        dropout: the fraction of the inputs of A that is set to 0 in training (in an Embedding, of A's rows).
        target: which layers: a name, a shell-style pattern, or a list of them, compared with the path in the module
            ("encoder.up"), its end ("up") and the layer's own name ("dense_1"); or a function(path, layer) -> bool.
            Default: every Dense and Linear, or what the patterns of `rank` say.
        rslora: scale = alpha / sqrt(R) instead.
        a_initializer: what fills A.
        b_initializer: what fills B; with zeros the model computes at first what it did before.

    Everything else in the module is frozen, as PEFT does it; weights that you thaw afterwards, a new head's say, train
    along. `remove` gives back what trained before. A Linear becomes an `AdaptedLinear` in place, and Linear again.
    Returns the `report`. Raises ValueError, and changes nothing, for a target that fits no layer, a name that is taken,
    a layer that is not built, has a constraint on its kernel or has a merged adapter.

    >>> import torch, fanin
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> print(fanin.adapters.add(model, "ann", rank=2, target="0"))
    0: Linear, ann (rank 2, scale 1), active: ann
    without: 2
    trained: 24 of 82 weights; adapters take 96 bytes
    >>> [key for key in model.state_dict()]
    ['0.weight', '0.bias', '0.ann_weight_a', '0.ann_weight_b', '2.weight', '2.bias']
    """
    ranks = chosen(module, target, rank)
    a, b = initializers.get(a_initializer), initializers.get(b_initializer)
    made = {
        path: Adapter(name, r, alpha, dropout, rslora, a_initializer=a, b_initializer=b) for path, r in ranks.items()
    }
    attach_all(module, made)
    _activate_all(module, name)
    for layer in having(module, name).values():
        for tensor in layer._low_rank().pair_names(name):
            getattr(layer, tensor).requires_grad_(True)
    return report(module)


def set_active(module: nn.Module, name: str | None) -> None:
    """Let the adapter of that name act and train, in all layers that have it; None: no adapter.

    Layers without it compute by their base alone. ValueError, nothing changed, if no layer has it or one is merged.

    >>> import torch, fanin
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2))
    >>> _ = fanin.adapters.add(model, "ann", rank=2)
    >>> fanin.adapters.set_active(model, None)
    >>> [name for name, weight in model.named_parameters() if weight.requires_grad]
    []
    """
    if name is not None:
        having(module, name)
    _activate_all(module, name)


def remove(module: nn.Module, name: str) -> None:
    """Take an adapter away, with its weights; with the last one, what trained before trains again.

    If it was active, none is now. An adapter that was merged with keep_base=False may go: the kernel stays as it is.
    ValueError, nothing changed, if no layer has it, or it is merged and the base is kept: unmerge first.
    """
    layers = having(module, name)
    merged = [path for path, layer in layers.items() if layer._low_rank().merged == name and layer._keeps_base()]
    if merged:
        raise ValueError(f"The adapter {name!r} is merged at {', '.join(map(repr, merged))}: unmerge first.")
    for layer in layers.values():
        layer._detach(name)
        restore(layer)
    for part in module.modules():
        release(part, name)


def attach_all(module: nn.Module, adapters: Mapping[str, Adapter]) -> None:
    """Attach an adapter at each path, all or none, and freeze the rest of the module. None of them acts yet."""
    layers = adaptable(module)
    faults = [
        f"{path or 'the layer'}: {why}" for path, each in adapters.items() if (why := _why_not(layers[path], each))
    ]
    others = [path for path, layer in adapted(module).items() if layer._low_rank().merged and path not in adapters]
    faults += [f"{path}: an adapter is merged: unmerge first" for path in others]
    if faults:
        name = next(iter(adapters.values())).name
        raise ValueError(f"{type(module).__name__} takes no adapter {name!r}: {'; '.join(faults)}.")
    done: list[Adapted] = []
    try:
        for path, adapter in adapters.items():
            layer = layers[path]
            ready = layer if isinstance(layer, Adapted) else adapt(cast(nn.Linear, layer))
            done.append(ready)
            ready._attach(adapter)
    except BaseException:
        for half in done:
            if adapter.name in half.adapters:
                half._detach(adapter.name)
            restore(half)
        raise
    keep_in_sight(module)
    for part in module.modules():
        pairs = part._pair_names() if isinstance(part, Adapted) else []
        hold(part, [each for each in part._parameters if each not in pairs], adapter.name)


def _why_not(layer: nn.Module, adapter: Adapter) -> str | None:
    if isinstance(layer, Adapted):
        return layer._why_no_adapter(adapter.name)
    linear = adapt(cast(nn.Linear, layer))  # for the question only
    try:
        return linear._why_no_adapter(adapter.name)
    finally:
        restore(linear)


def _activate_all(module: nn.Module, name: str | None) -> None:
    layers = adapted(module)
    merged = [path for path, layer in layers.items() if layer._low_rank().merged is not None]
    if merged:
        raise ValueError(f"An adapter is merged at {', '.join(map(repr, merged))}: unmerge first.")
    for layer in layers.values():
        layer._activate(name if name in layer.adapters else None)
