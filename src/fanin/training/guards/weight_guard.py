"""The parameters and buffers of a module: which there are, where they lie, and which of them train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def has_hooks(weight: Tensor) -> bool:
    """Whether functions were registered to be called with the gradient of a weight."""
    return bool(weight._backward_hooks) or bool(getattr(weight, "_post_accumulate_grad_hooks", None))


def _gradient(weight: Tensor) -> tuple[bool, bool]:
    """Whether a weight trains, and whether functions see its gradient."""
    return weight.requires_grad, has_hooks(weight)


# The same in C for weights that never had hooks; a dict of hooks that is there may be empty.
_TRAINED_WITHOUT_HOOKS = attrgetter("requires_grad", "_backward_hooks", "_post_accumulate_grad_hooks")


def _address(weight: Tensor) -> int | None:
    """Where a weight lies; None for one that is not made yet, 0 for one in several pieces, as sparse tensors are."""
    if is_lazy(weight):
        return None
    return weight.data_ptr() if weight.layout == torch.strided else 0


class WeightGuard:
    """The weights of a module's parts as they were."""

    def __init__(self, parts: Iterable[nn.Module]):
        registries = [registry for part in parts for registry in (part._parameters, part._buffers)]
        self._places = [
            (registry, name, weight)
            for registry in registries
            for name, weight in registry.items()
            if weight is not None
        ]
        self._owners: list[Any] = [registry for registry, _, _ in self._places]
        self._names = [name for _, name, _ in self._places]
        self._tensors: list[Tensor] = [weight for _, _, weight in self._places]
        self._gradients = [*map(_gradient, self._tensors)]
        self._without_hooks = [(trains, None, None) for trains, _ in self._gradients]
        self._where = [*map(_address, self._tensors)]
        self._lazy = [weight for weight in self._tensors if is_lazy(weight)]
        self._in_one_piece = [one for one in self._tensors if not is_lazy(one) and one.layout == torch.strided]
        self._addresses = [*map(Tensor.data_ptr, self._in_one_piece)]
        self._numbers = [*map(Tensor.numel, self._in_one_piece)]
        self._contiguous = [*map(Tensor.is_contiguous, self._in_one_piece)]

    def holds(self) -> bool:
        """Whether these tensors are still there, where they were."""
        return (
            all(map(is_, map(dict.get, self._owners, self._names), self._tensors))
            and [*map(Tensor.data_ptr, self._in_one_piece)] == self._addresses
            and [*map(Tensor.numel, self._in_one_piece)] == self._numbers  # `weight.data = weight.data[:5]`
            and (not self._lazy or all(map(is_lazy, self._lazy)))
        )

    def strides_hold(self) -> bool:
        """Whether no weight is turned on its own memory, `weight.data = weight.data.t()`: too rare for every call."""
        return [*map(Tensor.is_contiguous, self._in_one_piece)] == self._contiguous

    def gradients_hold(self) -> bool:
        """Whether the same weights train, and the same functions see their gradients."""
        is_unhooked = [*map(_TRAINED_WITHOUT_HOOKS, self._tensors)] == self._without_hooks
        return is_unhooked or [*map(_gradient, self._tensors)] == self._gradients

    def moved(self) -> Iterator[tuple[dict[str, Any], str]]:
        """What is not as it was: the dict that a weight belongs to, and words for what changed."""
        for (registry, name, weight), gradient, address in zip(self._places, self._gradients, self._where, strict=True):
            is_same = registry.get(name) is weight and _gradient(weight) == gradient
            if not is_same or is_lazy(weight) != (address is None):
                yield registry, f"the weight {name!r}"
            elif _address(weight) != address:
                yield registry, f"the memory of the weight {name!r}"
