"""Activation functions as torch modules, for layers that are handed over to plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fanin import activations

_MODULES: dict[Any, Callable[[], nn.Module]] = {
    activations.relu: nn.ReLU,
    activations.sigmoid: nn.Sigmoid,
    activations.tanh: nn.Tanh,
    activations.elu: nn.ELU,
    activations.selu: nn.SELU,
    activations.gelu: nn.GELU,
    activations.silu: nn.SiLU,
    activations.softplus: nn.Softplus,
    activations.softsign: nn.Softsign,
    activations.mish: nn.Mish,
    activations.relu6: nn.ReLU6,
    activations.softmax: lambda: nn.Softmax(dim=-1),
    activations.log_softmax: lambda: nn.LogSoftmax(dim=-1),
    activations.leaky_relu: lambda: nn.LeakyReLU(0.2),
}


class Function(nn.Module):
    """A function of tensors as a module without weights."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.function = function

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """function(inputs)."""
        return self.function(inputs)

    def extra_repr(self) -> str:
        """The name of the function."""
        return getattr(self.function, "__name__", repr(self.function))


def as_module(activation: Any) -> nn.Module:
    """torch's own module where there is one for the activation, else a module around the function."""
    if isinstance(activation, nn.Module):
        return activation
    return _MODULES.get(activation, lambda: Function(activation))()
