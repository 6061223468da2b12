"""A Parameter whose shape is not known yet: an optimizer can hold it, and `build` fills it in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from fanin.graph.infer import outside_transforms


class Placeholder(UninitializedParameter, nn.Parameter):
    """torch's UninitializedParameter, which can also be frozen, turned into bfloat16, and keeps its dtype in a pickle.

    Any other use is a ValueError that says what to do: call the layer once, or build it.
    """

    _more_methods = (torch.Tensor.requires_grad_, torch.Tensor.bfloat16, torch.empty_like)

    def __new__(
        cls, requires_grad: bool = True, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Placeholder:
        """An empty Parameter on `device`, of `dtype`."""
        make: Any = super().__new__  # its stub lacks the arguments
        with torch.inference_mode(False), outside_transforms():  # else it would be dead once the mode ends
            made: Placeholder = make(cls, requires_grad, device, dtype)
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in cls._more_methods:
            with torch._C.DisableTorchFunctionSubclass():
                first = args[0].data if func is torch.empty_like else args[0]
                return func(first, *args[1:], **(kwargs or {}))
        try:
            return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ValueError(
                f"A weight of a layer that is not built was used in {getattr(func, '__name__', func)}; its shape is "
                "not known yet. First call the layer once, or build it with an input shape, also before torch.export."
            ) from error

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (self.requires_grad, self.data.device, self.data.dtype)
