"""Smooth activations: sigmoids, and what is made of them, of exponentials and of roots."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fanin.activations.family import family


@family.entry()
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), between 0 and 1."""
    return torch.sigmoid(x)


@family.entry()
def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, between -1 and 1."""
    return torch.tanh(x)


@family.entry("swish")
def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x), also called swish.

    Source: Ramachandran et al. 2017, https://arxiv.org/abs/1710.05941
    """
    return F.silu(x)


@family.entry()
def gelu(x: Tensor, approximate: bool = False) -> Tensor:
    """x * P(Z <= x) for a standard normal Z, that is 0.5 * x * (1 + erf(x / sqrt(2))).

    Args:
        x: any shape.
        approximate: True takes 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))). Default False.

    Source: Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415
    """
    return F.gelu(x, approximate="tanh" if approximate else "none")


@family.entry()
def mish(x: Tensor) -> Tensor:
    """x * tanh(softplus(x)).

    Source: Misra 2019, https://arxiv.org/abs/1908.08681
    """
    return F.mish(x)


@family.entry()
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), and x itself above 20, where the two agree in float32."""
    return F.softplus(x)


@family.entry()
def squareplus(x: Tensor, b: float = 4) -> Tensor:
    """(x + sqrt(x^2 + b)) / 2; `b`, default 4, says how round the bend is.

    Source: Barron 2021, https://arxiv.org/abs/2112.11687
    """
    return (x + torch.sqrt(x * x + b)) / 2


@family.entry()
def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|), between -1 and 1."""
    return F.softsign(x)


@family.entry()
def exponential(x: Tensor) -> Tensor:
    """exp(x)."""
    return torch.exp(x)


@family.entry()
def log_sigmoid(x: Tensor) -> Tensor:
    """log(sigmoid(x)) = -log(1 + exp(-x)), without overflow."""
    return F.logsigmoid(x)


@family.entry()
def tanh_shrink(x: Tensor) -> Tensor:
    """x - tanh(x)."""
    return F.tanhshrink(x)


swish = silu
