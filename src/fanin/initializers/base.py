"""What an initializer is, and the family of all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fanin import config
from fanin.dtypes import as_dtype
from fanin.registry import Family

I = TypeVar("I", bound="Initializer")  # noqa: E741


class Initializer:
    """The base class: override `__call__(shape, dtype=None) -> Tensor`, and `get_config` if it has arguments.

    A plain function of (shape, dtype) serves as well.

    >>> import math
    >>> class Ramp(Initializer):
    ...     def __call__(self, shape, dtype=None):
    ...         return torch.arange(math.prod(shape), dtype=dtype).reshape(shape)
    >>> Ramp()((2, 2), torch.float32).tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new tensor of that shape and dtype. NotImplementedError unless overridden."""
        raise NotImplementedError(f"{type(self).__name__} does not say what to fill with: give it __call__().")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain JSON data; none in the base class."""
        return {}

    @classmethod
    def from_config(cls: type[I], config: Mapping[str, Any]) -> I:
        """The initializer that `get_config` described; the `dtype` that TensorFlow 1 wrote is left to the call."""
        if "dtype" in config and "dtype" not in inspect.signature(cls).parameters:
            config = {key: value for key, value in config.items() if key != "dtype"}
        return cls(**config)

    def clone(self: I) -> I:
        """An initializer of the same config."""
        return self.from_config(self.get_config())


family: Family[Callable[..., Tensor]] = Family("initializer", "keras.initializers", Initializer)
family.add(Initializer)


def resolved_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype of a call: that asked for, or `config.floatx()`."""
    return as_dtype(config.floatx() if dtype is None else dtype)
