"""PyTorch's own activations, such as `torch.relu` and `nn.GELU()`, by the names under which files know them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_FUNCTIONS: dict[str, tuple[Callable[..., Any], ...]] = {
    "celu": (F.celu, torch.celu),
    "elu": (F.elu,),
    "exponential": (torch.exp,),
    "gelu": (F.gelu,),
    "glu": (F.glu,),
    "hard_shrink": (F.hardshrink, torch.hardshrink),
    "hard_sigmoid": (F.hardsigmoid,),
    "hard_silu": (F.hardswish,),
    "hard_tanh": (F.hardtanh,),
    "log_sigmoid": (F.logsigmoid,),
    "mish": (F.mish,),
    "relu": (F.relu, torch.relu),
    "relu6": (F.relu6,),
    "selu": (F.selu, torch.selu),
    "sigmoid": (F.sigmoid, torch.sigmoid, torch.special.expit),
    "silu": (F.silu,),
    "soft_shrink": (F.softshrink,),
    "softplus": (F.softplus,),
    "softsign": (F.softsign,),
    "tanh": (F.tanh, torch.tanh),
    "tanh_shrink": (F.tanhshrink,),
}
# As they compute what fanin's function of that name does. LeakyReLU does not: its slope is 0.01, Keras's 0.2.
_MODULES: dict[str, Callable[[], nn.Module]] = {
    "celu": nn.CELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "glu": nn.GLU,
    "hard_shrink": nn.Hardshrink,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_silu": nn.Hardswish,
    "hard_tanh": nn.Hardtanh,
    "linear": nn.Identity,
    "log_sigmoid": nn.LogSigmoid,
    "log_softmax": lambda: nn.LogSoftmax(dim=-1),
    "mish": nn.Mish,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "soft_shrink": nn.Softshrink,
    "softmax": lambda: nn.Softmax(dim=-1),
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "tanh": nn.Tanh,
    "tanh_shrink": nn.Tanhshrink,
}


def name_of(activation: Any) -> str | None:
    """The name of fanin's function that computes the same as this one of PyTorch's; None for anything else."""
    if isinstance(activation, nn.Module):
        pairs = ((name, make()) for name, make in _MODULES.items())
        return next((name for name, plain in pairs if _are_equal(activation, plain)), None)
    return next((name for name, known in _FUNCTIONS.items() if any(one is activation for one in known)), None)


def _are_equal(module: nn.Module, other: nn.Module) -> bool:
    return type(module) is type(other) and _options(module) == _options(other)


def _options(module: nn.Module) -> dict[str, Any]:
    """What a module was made with, but for what changes no result."""
    return {
        name: value for name, value in vars(module).items() if name[0] != "_" and name not in ("training", "inplace")
    }
