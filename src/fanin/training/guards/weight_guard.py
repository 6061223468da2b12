"""A guard of the parameters and buffers of a module: their identity, memory, and whether they train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def has_hooks(weight: Tensor) -> bool:
    """Whether a weight has gradient hooks."""
    return bool(weight._backward_hooks) or bool(getattr(weight, "_post_accumulate_grad_hooks", None))


def _gradient_state(weight: Tensor) -> tuple[bool, bool]:
    """Whether a weight trains, and whether it has gradient hooks."""
    return weight.requires_grad, has_hooks(weight)


# The same in C, for weights that never had hooks: these fields are then None. They may also be empty dicts.
_GRADIENT_FIELDS = attrgetter("requires_grad", "_backward_hooks", "_post_accumulate_grad_hooks")


def _address(weight: Tensor) -> int | None:
    """The address of a weight; None for a lazy one, 0 for a sparse one."""
    if is_lazy(weight):
        return None
    return weight.data_ptr() if weight.layout == torch.strided else 0


class WeightGuard:
    """Guards the weights of a module's parts."""

    def __init__(self, parts: Iterable[nn.Module]):
        registries = [registry for part in parts for registry in (part._parameters, part._buffers)]
        self._weights = [
            (registry, name, weight)
            for registry in registries
            for name, weight in registry.items()
            if weight is not None
        ]
        self._owners: list[Any] = [registry for registry, _, _ in self._weights]
        self._names = [name for _, name, _ in self._weights]
        self._tensors: list[Tensor] = [weight for _, _, weight in self._weights]
        self._gradient_states = [*map(_gradient_state, self._tensors)]
        self._unhooked = [(trains, None, None) for trains, _ in self._gradient_states]
        self._addresses = [*map(_address, self._tensors)]
        self._lazy = [weight for weight in self._tensors if is_lazy(weight)]
        self._strided = [one for one in self._tensors if not is_lazy(one) and one.layout == torch.strided]
        self._data_pointers = [*map(Tensor.data_ptr, self._strided)]
        self._numels = [*map(Tensor.numel, self._strided)]
        self._contiguous = [*map(Tensor.is_contiguous, self._strided)]

    def holds(self) -> bool:
        """Whether the module has the same tensors, of the same size at the same address."""
        return (
            all(map(is_, map(dict.get, self._owners, self._names), self._tensors))
            and [*map(Tensor.data_ptr, self._strided)] == self._data_pointers
            and [*map(Tensor.numel, self._strided)] == self._numels  # `weight.data = weight.data[:5]`
            and (not self._lazy or all(map(is_lazy, self._lazy)))
        )

    def strides_hold(self) -> bool:
        """Whether no weight was transposed in place (`weight.data = weight.data.t()`): too rare for every call."""
        return [*map(Tensor.is_contiguous, self._strided)] == self._contiguous

    def gradients_hold(self) -> bool:
        """Whether the same weights train, and the same ones have gradient hooks."""
        is_unhooked = [*map(_GRADIENT_FIELDS, self._tensors)] == self._unhooked
        return is_unhooked or [*map(_gradient_state, self._tensors)] == self._gradient_states

    def differences(self) -> Iterator[tuple[dict[str, Any], str]]:
        """What has changed: the dict that a weight is registered in, and a description."""
        for (registry, name, weight), gradient, address in zip(
            self._weights, self._gradient_states, self._addresses, strict=True
        ):
            is_same = registry.get(name) is weight and _gradient_state(weight) == gradient
            if not is_same or is_lazy(weight) != (address is None):
                yield registry, f"the weight {name!r}"
            elif _address(weight) != address:
                yield registry, f"the memory of the weight {name!r}"
