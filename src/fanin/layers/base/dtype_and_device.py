"""The dtype policy of a layer, and `.to`: dtype and device move together with the weights."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fanin.dtypes import DTypePolicy
from fanin.layers.base.placeholder import Placeholder


class DtypeAndDevice(nn.Module):
    """The part of a layer that knows its dtypes and where its weights are made."""

    dtype_policy: DTypePolicy
    _home: torch.device | None

    @property
    def dtype(self) -> str:
        """The name of the dtype of the weights; "float32" also under a mixed policy."""
        return self.dtype_policy.variable_dtype

    @property
    def variable_dtype(self) -> str:
        """As `dtype`."""
        return self.dtype_policy.variable_dtype

    @property
    def compute_dtype(self) -> str:
        """The name of the dtype of the computation; "bfloat16" under mixed_bfloat16."""
        return self.dtype_policy.compute_dtype

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Let `.to`, `.half`, `.double`, ... move the dtype policy and the place of weights still to be made along."""
        lazy = ((name, p) for name, p in self._parameters.items() if isinstance(p, Placeholder))
        waiting = {name: cast(nn.Parameter, p).requires_grad for name, p in lazy}
        result = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, trains in waiting.items():
            moved = self._parameters[name]
            if moved is not None and not is_lazy(moved):  # torch replaces it on the way to the meta device
                self._parameters[name] = Placeholder(trains, moved.device, moved.dtype)
        before = torch.empty(0, dtype=self.dtype_policy.variable, device=self._home)
        after = cast(torch.Tensor, fn(before))
        if after.dtype != before.dtype:
            self._set_policy(self.dtype_policy.moved_to(after.dtype))
        if after.device != before.device:
            self.__dict__["_home"] = after.device
        return result

    def _set_policy(self, policy: DTypePolicy) -> None:
        self.__dict__["dtype_policy"] = policy
        self.__dict__["_compute"] = policy.compute
        if self.__dict__.get("_direct_dtype") is not None:
            self.__dict__["_direct_dtype"] = policy.compute
        self.__dict__["_plain"] = policy.compute is policy.variable
