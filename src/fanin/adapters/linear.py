"""`torch.nn.Linear` with adapters: the same module, of another class while it has some."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from fanin import initializers
from fanin.kernels import LowRank, Slot, Transposed
from fanin.layers.base.adapted import Adapted


class AdaptedLinear(Adapted, nn.Linear):
    """A Linear whose product goes through a kernel scheme: x @ weight.T + bias + scale (x @ A) @ B.

    `weight` (U, I) and `bias` (U,) are where they were; each adapter adds `<name>_weight_a` (I, R) and
    `<name>_weight_b` (R, U). One is made by `adapt`, never by itself.
    """

    saved_as = "Linear"  # its name in files

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, ..., I) -> (B, ..., U)."""
        return self.scheme.matmul(input, self, self.bias)

    def extra_repr(self) -> str:
        """As Linear's, with the adapters."""
        return f"{super().extra_repr()}, adapters={list(self.adapters)}"

    def _sizes(self) -> tuple[int, int]:
        return self.in_features, self.out_features

    def _called(self) -> str:
        return f"Linear({self.in_features}, {self.out_features})"

    def _make(self, slot: Slot) -> None:
        """Made where the weight is; float32, or float64 beside a weight of float64."""
        dtype = torch.promote_types(torch.float32, self.weight.dtype)
        value = self._value(slot, dtype).to(self.weight.device, dtype, copy=True).contiguous()
        self.register_parameter(slot.name, nn.Parameter(value))

    def _draw(self, slot: Slot) -> None:
        tensor = getattr(self, slot.name)
        tensor.copy_(self._value(slot, tensor.dtype))

    def _value(self, slot: Slot, dtype: torch.dtype) -> torch.Tensor:
        draw = initializers.get(slot.initializer)
        assert draw is not None
        with torch.no_grad():
            value = draw(cast("tuple[int, ...]", slot.shape), dtype=dtype)
        if tuple(value.shape) != slot.shape:
            raise ValueError(
                f"The initializer of {slot.name!r} gave shape {tuple(value.shape)}, expected {slot.shape}."
            )
        return value.detach()


def adapt(linear: nn.Linear) -> AdaptedLinear:
    """Let a plain Linear take adapters, in place."""
    linear.__class__ = AdaptedLinear
    adapted = cast(AdaptedLinear, linear)
    adapted.scheme = Transposed()
    return adapted


def restore(module: Any) -> None:
    """Make a plain Linear of one that has no adapters left, in place; anything else is left alone."""
    if type(module) is not AdaptedLinear or isinstance(module.scheme, LowRank):
        return
    del module.__dict__["scheme"]
    for number, hook in list(module._forward_pre_hooks.items()):
        if hook is hand_on:
            del module._forward_pre_hooks[number]
    module.__class__ = cast(Any, nn.Linear)


def keep_in_sight(module: nn.Module) -> None:
    """Make `torch.nn.TransformerEncoderLayer` call its adapted Linears: its fast way for inference reads their weights
    alone, and leaves it where a part has a hook."""
    for layer in module.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            for part in layer.children():
                if type(part) is AdaptedLinear and hand_on not in part._forward_pre_hooks.values():
                    part.register_forward_pre_hook(hand_on)


def hand_on(module: nn.Module, args: Any) -> None:
    """A hook that changes nothing."""
