"""What modules hold: objects of one's own in objects and in lists, lists in lists, functions, attributes of classes.

Small containers are followed, however deep they lie, and a bounded number of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fanin.training.guards.container_guard import KINDS, LARGE, Place
from fanin.training.guards.references import attributes_of, holds_options, is_own
from fanin.weights import CONSTRAINTS, REGULARIZERS

# Dicts and lists of a module that are changed in place.
REGISTRIES = (
    "_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
    "_backward_pre_hooks", "_kept_losses", "_kept_updates", REGULARIZERS, CONSTRAINTS,
)  # fmt: skip
_MOST = 256  # objects: comparing more before each step would take longer than a step
_MOST_REACHED = 10_000
_PLAIN = (bool, int, float, str, tuple, type(None), Tensor)


def helpers_of(parts: list[nn.Module], beside: Iterable[Any]) -> list[Any]:
    """Objects other than modules that calls read: regularizers, constraints, and objects of classes of one's own."""
    found = [*beside]
    for part in parts:
        own = part.__dict__
        found += [rule for kind in (REGULARIZERS, CONSTRAINTS) for rule in own.get(kind, {}).values()]
        found += objects_within(value for name, value in own.items() if name not in REGISTRIES)
    known = {id(one): one for one in (*found, *objects_within(beside)) if attributes_of(one)}
    own_parts = {*map(id, parts)}
    others = (one for key, one in known.items() if key not in own_parts)
    return [one for one in others if not issubclass(type(one), (type, FunctionType, MethodType))]


def functions_of(parts: list[nn.Module]) -> Iterable[Any]:
    """Functions that modules have as attributes, such as activations, and hooks."""
    for part in parts:
        hooks = (part.__dict__.get(name, {}).values() for name in REGISTRIES if name.endswith("_hooks"))
        for value in (*part.__dict__.values(), *chain.from_iterable(hooks)):
            if isinstance(value, (FunctionType, MethodType)):
                yield value


def objects_within(values: Iterable[Any]) -> list[Any]:
    """The objects of one's own among these values, in their small containers, and in the attributes of such objects."""
    found = (one for one in _reached(values, holds_options) if holds_options(one) and attributes_of(one))
    return [*islice(found, _MOST)]


def tensors_within(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among these values, likewise, and those of modules that are not parts of another."""
    found: dict[int, Tensor] = {}
    for one in _reached(values, holds_options):
        tensors = [one] if issubclass(type(one), Tensor) else []
        if issubclass(type(one), nn.Module):
            tensors = [*one.parameters(), *one.buffers()]
        found |= {id(tensor): tensor for tensor in tensors}
    return [*found.values()]


def generators_within(values: Iterable[Any]) -> list[torch.Generator]:
    """PyTorch's sources of random numbers among these values, and in objects and small containers of any kind."""
    return [one for one in _reached(values, attributes_of) if isinstance(one, torch.Generator)]


def _reached(values: Iterable[Any], follows: Callable[[Any], Any]) -> Iterator[Any]:
    """These values, what is in their small containers, and the attributes of objects that `follows` picks."""
    waiting, seen = [*values], set[int]()
    while waiting and len(seen) < _MOST_REACHED:
        one = waiting.pop()
        kind = type(one)
        if id(one) in seen or issubclass(kind, (type, FunctionType, MethodType, ModuleType)):
            continue
        seen.add(id(one))
        yield one
        if kind in (*KINDS, tuple):
            waiting += [] if len(one) > LARGE else one.values() if kind is dict else one
        elif not issubclass(kind, (nn.Module, Tensor)) and follows(one):
            waiting += attributes_of(one).values()


def containers_within(places: Iterable[Place]) -> Iterator[Place]:
    """These containers and those inside them."""
    waiting, seen = [*places], set[int]()
    while waiting:
        place = waiting.pop()
        _, name, value = place
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield place
        if type(value) in KINDS and len(value) <= LARGE:
            items = value.values() if type(value) is dict else value
            waiting += [({}, name, item) for item in items if issubclass(type(item), KINDS)]


def class_attributes(objects: Iterable[Any]) -> Iterator[tuple[type, str, Any]]:
    """Numbers, words and tensors that are attributes of the classes of objects, not of one of them alone."""
    kinds = {kind: None for one in objects for kind in type(one).__mro__ if is_own(kind)}
    for kind in kinds:
        for name, value in vars(kind).items():
            if name[:2] != "__" and issubclass(type(value), _PLAIN):
                yield kind, name, value
