"""The weights of a layer: listed, counted, read and written, frozen and thawed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fanin.layers.base.convert import as_tensor, checked_cast
from fanin.layers.base.frozen import set_held


def own_weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The module's own weights: Parameters in the order of creation, then persistent buffers."""
    for name, parameter in module._parameters.items():
        if parameter is not None and not is_lazy(parameter):
            yield name, getattr(module, name)
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            yield name, buffer


def named_weights(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """All weights of a module and its submodules with their full names, module by module, shared ones once."""
    seen: set[int] = set()
    found = []
    for prefix, owner in module.named_modules():
        for name, weight in own_weights(owner):
            if id(weight) not in seen:
                seen.add(id(weight))
                found.append((f"{prefix}.{name}" if prefix else name, weight))
    return found


class Variables(nn.Module):
    """The part of a layer that owns weights. `weights` lists Parameters first; freezing never reorders."""

    name: str
    built: bool
    _trainable: bool

    # --- listing ---------------------------------------------------------------------------------------------

    @property
    def weights(self) -> list[torch.Tensor]:
        """All weights, also those of sublayers: each layer's Parameters, then its buffers. [] before build."""
        return [weight for _, weight in named_weights(self)]

    @property
    def trainable_weights(self) -> list[torch.Tensor]:
        """The weights that train now: Parameters with `requires_grad`."""
        return [weight for weight in self.weights if isinstance(weight, nn.Parameter) and weight.requires_grad]

    @property
    def non_trainable_weights(self) -> list[torch.Tensor]:
        """The weights that do not train now: frozen Parameters, and buffers."""
        return [weight for weight in self.weights if not (isinstance(weight, nn.Parameter) and weight.requires_grad)]

    @property
    def variables(self) -> list[torch.Tensor]:
        """As `weights`."""
        return self.weights

    @property
    def trainable_variables(self) -> list[torch.Tensor]:
        """As `trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[torch.Tensor]:
        """As `non_trainable_weights`."""
        return self.non_trainable_weights

    @property
    def trainable(self) -> bool:
        """Whether training changes the layer: one truth with `requires_grad` of its Parameters, sublayers included."""
        parameters = list(self.parameters())
        return any(p.requires_grad for p in parameters) if parameters else self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"Layer {self.name!r}: trainable must be True or False, found {value!r}.")
        set_trainable(self, bool(value))

    def count_params(self) -> int:
        """The number of scalars in all weights. ValueError before build."""
        if not self.built:
            raise ValueError(
                f"Layer {self.name!r} has no weights to count yet: call it once, or build it with a shape."
            )
        return sum(weight.numel() for weight in self.weights)

    # --- reading and writing ---------------------------------------------------------------------------------

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Copies of all weights as numpy arrays, in the order of `weights`; bfloat16 as float32. [] before build."""
        return [to_numpy(weight) for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Write all weights, in the order of `weights`.

        A wrong count is a ValueError; so is, naming the weight, a wrong shape or a number that its dtype cannot hold.
        Complex numbers for a real weight are a TypeError. Nothing is changed then.
        """
        names = named_weights(self)
        values = list(weights)
        if not self.built and values:
            raise ValueError(f"Layer {self.name!r} has no weights to set yet: call it once, or build it with a shape.")
        if len(values) != len(names):
            raise ValueError(f"Layer {self.name!r} has {len(names)} weights, found {len(values)} values.")
        arrays = [
            as_tensor(value, f"value for {self.name}.{name}") for value, (name, _) in zip(values, names, strict=True)
        ]
        for (name, weight), array in zip(names, arrays, strict=True):
            if weight.shape != array.shape:
                raise ValueError(
                    f"Weight {name!r} of layer {self.name!r} has shape {tuple(weight.shape)}, "
                    f"found a value of shape {tuple(array.shape)}."
                )
            if array.is_complex() and not weight.is_complex():
                raise TypeError(f"Weight {name!r} of layer {self.name!r} takes real numbers, found {array.dtype}.")
        arrays = [
            checked_cast(array, weight.dtype, f"value for {self.name}.{name}")
            for (name, weight), array in zip(names, arrays, strict=True)
        ]
        with torch.no_grad():
            for (_, weight), array in zip(names, arrays, strict=True):
                weight.copy_(array)


def set_trainable(module: nn.Module, value: bool) -> None:
    """Freeze or thaw a module and everything in it; a kernel that an adapter stands in for stays frozen."""
    held: set[int] = set()
    for part in module.modules():
        held.update(set_held(part, value))
        if isinstance(part, Variables):
            part.__dict__["_trainable"] = value
    for parameter in module.parameters():
        if (parameter.dtype.is_floating_point or parameter.dtype.is_complex) and id(parameter) not in held:
            parameter.requires_grad_(value)


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A copy as a numpy array; bfloat16, which numpy lacks, as float32."""
    tensor = tensor.detach()
    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return tensor.cpu().numpy().copy()
