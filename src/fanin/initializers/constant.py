"""Initializers that give the same values every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanin import arguments, registry
from fanin.initializers.base import Initializer, family, resolved_dtype


@family.entry("zero")
class Zeros(Initializer):
    """All 0."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new tensor of zeros; any dtype."""
        return torch.zeros(tuple(shape), dtype=resolved_dtype(dtype))


@family.entry("one")
class Ones(Initializer):
    """All 1."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new tensor of ones; any dtype."""
        return torch.ones(tuple(shape), dtype=resolved_dtype(dtype))


@family.entry()
class Constant(Initializer):
    """All `value`; or, given an array or a tensor, just those values.

    Args:
        value: a number, default 0; or an array or tensor, whose shape must then be the one asked for at the call, else
            ValueError with both shapes.

    >>> Constant(3.0)((2,)).tolist()
    [3.0, 3.0]
    """

    def __init__(self, value: Any = 0.0):
        self.value = value.detach() if isinstance(value, Tensor) else value

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new tensor; any dtype."""
        # By numpy, so that a Python float keeps its 64 bits until the end.
        value = self.value if isinstance(self.value, Tensor) else torch.tensor(np.array(self.value, order="C"))
        if value.ndim and value.shape != tuple(shape):
            raise ValueError(
                f"These initial values have shape {tuple(value.shape)}, but the weight has shape {tuple(shape)}."
            )
        return torch.empty(tuple(shape), dtype=resolved_dtype(dtype)).copy_(value)

    def get_config(self) -> dict[str, Any]:
        """{"value": ...}, an array in Keras's form for arrays."""
        value = self.value
        if isinstance(value, Tensor) and value.dtype == torch.bfloat16:
            value = value.float()  # numpy has no bfloat16
        return {"value": registry.serialize(value)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Constant:
        """The initializer that `get_config` described."""
        return cls(registry.deserialize(config["value"]))


@family.entry("IdentityInitializer")
class Identity(Initializer):
    """`gain` on the diagonal, 0 elsewhere; for matrices, square or not.

    Args:
        gain: default 1.

    ValueError, at the call, for a shape that is no matrix.
    """

    def __init__(self, gain: float = 1.0):
        self.gain = arguments.finite("gain", gain)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new matrix of that shape."""
        if len(shape) != 2:
            raise ValueError(f"Identity makes matrices, found the shape {tuple(shape)}.")
        return torch.eye(*shape).mul_(self.gain).to(resolved_dtype(dtype))

    def get_config(self) -> dict[str, Any]:
        """{"gain": ...}; without it for 1, as in Keras, which forgets the gain."""
        return {} if self.gain == 1 else {"gain": self.gain}
