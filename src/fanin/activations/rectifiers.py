"""The identity, and rectifiers: what is positive passes, what is negative is bent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import relu as _relu

from fanin.activations.family import family


@family.entry()
def linear(x: Tensor) -> Tensor:
    """The identity: returns `x` itself. What `None` means for an activation."""
    return x


@family.entry()
def relu(x: Tensor, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Tensor:
    """max(x, 0); in general `min(x, max_value)` above the threshold and `negative_slope * (x - threshold)` below it.

    Args:
        x: any shape.
        negative_slope: the slope below the threshold, default 0.
        max_value: the largest result; None, the default, for no limit.
        threshold: values up to it count as below, default 0.

    Source: Nair & Hinton 2010, https://www.cs.toronto.edu/~fritz/absps/reluICML.pdf

    >>> relu(torch.tensor([-2.0, 3.0])).tolist()
    [0.0, 3.0]
    >>> relu(torch.tensor([-2.0, 3.0]), negative_slope=0.5, max_value=1.0).tolist()
    [-1.0, 1.0]
    """
    if max_value is None and not negative_slope and not threshold:
        return _relu(x)
    return _bent_relu(x, negative_slope, max_value, threshold)


def _bent_relu(x: Tensor, negative_slope: float, max_value: float | None, threshold: float) -> Tensor:
    if not threshold and max_value is None:
        return F.leaky_relu(x, negative_slope)
    if threshold:
        above = torch.where(x > threshold, x, torch.zeros_like(x))
        if max_value is not None:
            above = above.clamp(0.0, max_value)
    else:
        # The slope at exactly 6 is 0 in relu6 and 1 in clamp.
        above = F.relu6(x) if max_value == 6 else torch.relu(x).clamp(max=max_value)
    return above - negative_slope * torch.relu(threshold - x) if negative_slope else above


@family.entry()
def leaky_relu(x: Tensor, negative_slope: float = 0.2) -> Tensor:
    """x where x > 0, else `negative_slope * x`.

    Args:
        x: any shape.
        negative_slope: default 0.2, as in Keras; torch's own default is 0.01.

    Source: Maas et al. 2013, https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf
    """
    return F.leaky_relu(x, negative_slope)


@family.entry()
def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return F.relu6(x)


@family.entry()
def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else `alpha * (exp(x) - 1)`; `alpha` defaults to 1.

    Source: Clevert et al. 2016, https://arxiv.org/abs/1511.07289
    """
    return F.elu(x, alpha)


@family.entry()
def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else `alpha * (exp(x / alpha) - 1)`; `alpha` defaults to 1, and 0 is a RuntimeError.

    Source: Barron 2017, https://arxiv.org/abs/1704.07483
    """
    return F.celu(x, alpha)


@family.entry()
def selu(x: Tensor) -> Tensor:
    """1.05070098 * elu(x, 1.67326324): keeps mean 0 and variance 1 through layers with `lecun_normal` kernels.

    Source: Klambauer et al. 2017, https://arxiv.org/abs/1706.02515
    """
    return F.selu(x)
