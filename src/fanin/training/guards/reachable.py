"""What is reachable from modules: the user's objects, containers, functions, and attributes of classes.

Small containers are followed to any depth, up to a bounded number of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fanin.training.guards.container_guard import CONTAINERS, MOST_ITEMS, Binding
from fanin.training.guards.references import attributes_of, holds_options, is_user_code
from fanin.weights import CONSTRAINTS, REGULARIZERS

# Dicts and lists of a module that are mutated, not assigned.
REGISTRIES = (
    "_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks",
    "_backward_pre_hooks", "_kept_losses", "_kept_updates", REGULARIZERS, CONSTRAINTS,
)  # fmt: skip
_MOST_OBJECTS = 256  # comparing more before each step would take longer than the step
_MOST_VISITED = 10_000
_PLAIN = (bool, int, float, str, tuple, type(None), Tensor)


def helpers_of(parts: list[nn.Module], extra_objects: Iterable[Any]) -> list[Any]:
    """Objects other than modules that calls may read: regularizers, constraints, and objects of the user's classes."""
    found = [*extra_objects]
    for part in parts:
        own = part.__dict__
        found += [rule for kind in (REGULARIZERS, CONSTRAINTS) for rule in own.get(kind, {}).values()]
        found += objects_within(value for name, value in own.items() if name not in REGISTRIES)
    known = {id(one): one for one in (*found, *objects_within(extra_objects)) if attributes_of(one)}
    own_parts = {*map(id, parts)}
    others = (one for key, one in known.items() if key not in own_parts)
    return [one for one in others if not issubclass(type(one), (type, FunctionType, MethodType))]


def functions_of(parts: list[nn.Module]) -> Iterable[Any]:
    """Functions that are attributes of modules, such as activations, and hooks."""
    for part in parts:
        hooks = (part.__dict__.get(name, {}).values() for name in REGISTRIES if name.endswith("_hooks"))
        for value in (*part.__dict__.values(), *chain.from_iterable(hooks)):
            if isinstance(value, (FunctionType, MethodType)):
                yield value


def objects_within(values: Iterable[Any]) -> list[Any]:
    """The user's objects among these values, in their small containers, and in the attributes of such objects."""
    found = (one for one in _walk(values, holds_options) if holds_options(one) and attributes_of(one))
    return [*islice(found, _MOST_OBJECTS)]


def tensors_within(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among these values, likewise, and the parameters and buffers of modules among them."""
    found: dict[int, Tensor] = {}
    for one in _walk(values, holds_options):
        tensors = [one] if issubclass(type(one), Tensor) else []
        if issubclass(type(one), nn.Module):
            tensors = [*one.parameters(), *one.buffers()]
        found |= {id(tensor): tensor for tensor in tensors}
    return [*found.values()]


def generators_within(values: Iterable[Any]) -> list[torch.Generator]:
    """torch's generators among these values, in small containers, and in the attributes of any object."""
    return [one for one in _walk(values, attributes_of) if isinstance(one, torch.Generator)]


def _walk(values: Iterable[Any], may_enter: Callable[[Any], Any]) -> Iterator[Any]:
    """These values, the items of their small containers, and the attributes of objects that `may_enter` accepts."""
    waiting, seen = [*values], set[int]()
    while waiting and len(seen) < _MOST_VISITED:
        one = waiting.pop()
        kind = type(one)
        if id(one) in seen or issubclass(kind, (type, FunctionType, MethodType, ModuleType)):
            continue
        seen.add(id(one))
        yield one
        if kind in (*CONTAINERS, tuple):
            waiting += [] if len(one) > MOST_ITEMS else one.values() if kind is dict else one
        elif not issubclass(kind, (nn.Module, Tensor)) and may_enter(one):
            waiting += attributes_of(one).values()


def containers_within(bindings: Iterable[Binding]) -> Iterator[Binding]:
    """These containers, and those inside them, under the same name."""
    waiting, seen = [*bindings], set[int]()
    while waiting:
        binding = waiting.pop()
        _, name, value = binding
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield binding
        if type(value) in CONTAINERS and len(value) <= MOST_ITEMS:
            items = value.values() if type(value) is dict else value
            waiting += [({}, name, item) for item in items if issubclass(type(item), CONTAINERS)]


def class_attributes(objects: Iterable[Any]) -> Iterator[tuple[type, str, Any]]:
    """(class, name, value) of the numbers, strings and tensors that are attributes of the objects' own classes."""
    kinds = {kind: None for one in objects for kind in type(one).__mro__ if is_user_code(kind)}
    for kind in kinds:
        for name, value in vars(kind).items():
            if name[:2] != "__" and issubclass(type(value), _PLAIN):
                yield kind, name, value
