"""Which layers of a model get an adapter, and of which rank."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from fanin.errors import nearest
from fanin.layers.base.adapted import Adapted
from fanin.layers.embedding import Embedding

Target = str | Iterable[str] | Callable[[str, nn.Module], bool]


def adaptable(module: nn.Module) -> dict[str, nn.Module]:
    """Path -> each layer that can have adapters: Dense, Embedding, torch.nn.Linear itself, no subclass of it."""
    return {path: part for path, part in module.named_modules() if isinstance(part, Adapted) or type(part) is nn.Linear}


def adapted(module: nn.Module) -> dict[str, Adapted]:
    """Path -> each layer that has adapters."""
    return {path: part for path, part in module.named_modules() if isinstance(part, Adapted) and part.adapters}


def having(module: nn.Module, name: str) -> dict[str, Adapted]:
    """Path -> each layer that has the adapter of that name. ValueError if there is none, TypeError for no name."""
    if not isinstance(name, str):
        raise TypeError(
            f"The name of one adapter is needed, found {name!r}. `fanin.adapters.combine` makes one of several."
        )
    layers = adapted(module)
    found = {path: layer for path, layer in layers.items() if name in layer.adapters}
    if not found:
        known = sorted({each for layer in layers.values() for each in layer.adapters})
        raise ValueError(
            f"{type(module).__name__} has no adapter {name!r}; it has {', '.join(map(repr, known)) or 'none'}."
        )
    return found


def chosen(module: nn.Module, target: Target | None, rank: int | Mapping[str, int]) -> dict[str, int]:
    """Path -> rank of each layer that is to get an adapter.

    Args:
        module: the model.
        target: names, patterns or a predicate, see `fanin.adapters.add`.
        rank: one for all, or pattern -> rank, of which the last that matches holds; without a target, it is the target.

    Raises ValueError for a name or pattern that no layer fits, and for layers that no pattern gives a rank.
    """
    layers = adaptable(module)
    patterns = dict(rank) if isinstance(rank, Mapping) else {}
    if target is None and patterns:
        paths = [path for pattern in patterns for path in _matching(module, layers, pattern)]
    elif target is None:
        paths = [path for path, layer in layers.items() if not isinstance(layer, Embedding)]
    elif callable(target):
        paths = [path for path, layer in layers.items() if target(path, layer)]
    else:
        entries = [target] if isinstance(target, str) else list(target)
        paths = [path for entry in entries for path in _matching(module, layers, entry)]
    if not paths:
        raise ValueError(f"No layer of {type(module).__name__} is to get an adapter: it has {_shown(layers)}.")
    if not isinstance(rank, Mapping):
        return dict.fromkeys(sorted(paths, key=list(layers).index), rank)
    ranks = {path: each for pattern, each in patterns.items() for path in _matching(module, layers, pattern)}
    missing = [path for path in paths if path not in ranks]
    if missing:
        raise ValueError(f"No pattern of rank gives one to {', '.join(map(repr, missing))}: found {list(patterns)}.")
    return {path: ranks[path] for path in layers if path in set(paths)}


def _matching(module: nn.Module, layers: Mapping[str, nn.Module], pattern: Any) -> list[str]:
    """The paths of the layers that a pattern fits. ValueError if there is none."""
    if not isinstance(pattern, str):
        raise TypeError(f"A target is made of names and patterns, found {pattern!r}.")
    found = [path for path, layer in layers.items() if _fits(path, layer, pattern)]
    if found:
        return found
    other = next((part for path, part in module.named_modules() if _fits(path, part, pattern)), None)
    if other is not None:
        raise ValueError(
            f"{pattern!r} is a {type(other).__name__}, which takes no adapter: Dense, Embedding and torch.nn.Linear do."
        )
    names = {*layers, *(str(getattr(layer, "name", "")) for layer in layers.values())}
    names.discard("")  # torch's layers have no name, a layer by itself has no path
    raise ValueError(f"No layer of {type(module).__name__} fits {pattern!r}.{nearest(pattern, names)}")


def _fits(path: str, layer: nn.Module, pattern: str) -> bool:
    """By the path, by its end, or by the layer's own name."""
    name = getattr(layer, "name", None)
    ways = [path, *([name] if isinstance(name, str) else [])]
    return any(fnmatch.fnmatchcase(way, pattern) for way in ways) or fnmatch.fnmatchcase(f".{path}", f"*.{pattern}")


def _shown(layers: Mapping[str, nn.Module]) -> str:
    shown = [repr(path) for path in list(layers)[:20]]
    return f"{', '.join(shown) or 'none'}{' and more' if len(layers) > 20 else ''} that can have one"
