"""Activations: functions that act on a layer's output, under Keras's names, arguments and defaults.

Each takes a float tensor `x` of any shape and returns a tensor of the same shape and dtype, except `glu`, which halves
one axis. All but the softmaxes and `glu` act on every element alone. The formulas are those of Keras 3.15.1; the work
is torch's, and so are the errors for tensors of a wrong dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import relu as _relu

from fanin.registry import Family, get_registered_name

__all__ = [
    "celu",
    "deserialize",
    "elu",
    "exponential",
    "gelu",
    "get",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squareplus",
    "swish",
    "tanh",
    "tanh_shrink",
    "threshold",
]

Activation = Callable[[Tensor], Tensor]
family: Family[Activation] = Family("activation", "keras.activations")


@family.entry()
def linear(x: Tensor) -> Tensor:
    """The identity: returns `x` itself. What `None` means for an activation."""
    return x


# --- rectifiers -------------------------------------------------------------------------------------------------------


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


# --- smooth ones ------------------------------------------------------------------------------------------------------


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


# --- piecewise ones ---------------------------------------------------------------------------------------------------


@family.entry()
def hard_sigmoid(x: Tensor) -> Tensor:
    """min(max(x / 6 + 0.5, 0), 1). (Keras 2 had 0.2 * x + 0.5.)"""
    return F.hardsigmoid(x)


@family.entry("hard_swish")
def hard_silu(x: Tensor) -> Tensor:
    """x * hard_sigmoid(x), also called hard swish.

    Source: Howard et al. 2019, https://arxiv.org/abs/1905.02244
    """
    return F.hardswish(x)


@family.entry()
def hard_tanh(x: Tensor) -> Tensor:
    """min(max(x, -1), 1)."""
    return F.hardtanh(x)


@family.entry()
def hard_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    """x where |x| > threshold, else 0; the threshold defaults to 0.5."""
    return F.hardshrink(x, threshold)


@family.entry()
def soft_shrink(x: Tensor, threshold: float = 0.5) -> Tensor:
    """sign(x) * max(|x| - threshold, 0); the threshold defaults to 0.5, and a negative one is a RuntimeError."""
    return F.softshrink(x, threshold)


@family.entry()
def sparse_sigmoid(x: Tensor) -> Tensor:
    """min(max((x + 1) / 2, 0), 1).

    Source: Blondel et al. 2019, https://arxiv.org/abs/1901.02324
    """
    return (F.hardtanh(x) + 1) / 2


@family.entry()
def sparse_plus(x: Tensor) -> Tensor:
    """0 up to -1, (x + 1)^2 / 4 up to 1, then x: the integral of `sparse_sigmoid`.

    Source: Blondel et al. 2019, https://arxiv.org/abs/1901.02324
    """
    return torch.where(x < 1, (x + 1).clamp(min=0).square() / 4, x)


@family.entry()
def threshold(x: Tensor, threshold: float, default_value: float) -> Tensor:
    """x where x > threshold, else `default_value`; both must be given, so its name alone cannot serve a layer."""
    return F.threshold(x, threshold, default_value)


# --- along an axis ----------------------------------------------------------------------------------------------------

Axis = int | tuple[int, ...] | list[int] | None


@family.entry()
def softmax(x: Tensor, axis: Axis = -1) -> Tensor:
    """exp(x) / sum(exp(x)), positive and summing to 1 along `axis`, without overflow.

    Args:
        x: any shape.
        axis: an axis, default the last; several axes; or None for all.

    >>> softmax(torch.tensor([[1.0, 1.0]])).tolist()
    [[0.5, 0.5]]
    """
    if axis is None or isinstance(axis, (tuple, list)):
        return _log_softmax(x, axis).exp()
    return torch.softmax(x, axis)


@family.entry()
def log_softmax(x: Tensor, axis: Axis = -1) -> Tensor:
    """log(softmax(x)) = x - log(sum(exp(x))) along `axis` (one, several, or None for all), without overflow."""
    if axis is None or isinstance(axis, (tuple, list)):
        return _log_softmax(x, axis)
    return torch.log_softmax(x, axis)


def _log_softmax(x: Tensor, axis: tuple[int, ...] | list[int] | None) -> Tensor:
    axes = tuple(range(x.ndim)) if axis is None else tuple(axis)
    return x - torch.logsumexp(x, axes, keepdim=True)


@family.entry()
def sparsemax(x: Tensor, axis: int = -1) -> Tensor:
    """The point of the probability simplex nearest to x: max(x - tau, 0), tau such that it sums to 1 along `axis`.

    With x sorted downwards as z, the k largest stay positive for the largest k with k * z_k > z_1 + ... + z_k - 1, and
    tau = (z_1 + ... + z_k - 1) / k.

    Source: Martins & Astudillo 2016, https://arxiv.org/abs/1602.02068

    >>> sparsemax(torch.tensor([1.0, 2.0, 1.5])).tolist()
    [0.0, 0.75, 0.25]
    """
    z = torch.sort(x, dim=axis, descending=True).values
    rank = torch.ones_like(z).cumsum(axis)
    kept = rank * z > z.cumsum(axis) - 1
    largest = torch.where(kept, z, torch.zeros_like(z)).sum(axis, keepdim=True)
    tau = (largest - 1) / kept.sum(axis, keepdim=True)
    return torch.relu(x - tau)


@family.entry()
def glu(x: Tensor, axis: int = -1) -> Tensor:
    """a * sigmoid(b), where a and b are the halves of x along `axis`, whose size must be even (else a RuntimeError).

    Source: Dauphin et al. 2017, https://arxiv.org/abs/1612.08083
    """
    return F.glu(x, axis)


swish = silu
hard_swish = hard_silu

# --- names ------------------------------------------------------------------------------------------------------------


def get(identifier: Any) -> Activation:
    """The function (or callable object) that `identifier` means.

    Args:
        identifier: None for `linear`, a name, a callable on tensors, a layer or `nn.Module`, its class, or a config.

    Raises ValueError for an unknown name, with near ones, and TypeError for what cannot be called.

    >>> get("swish") is silu
    True
    """
    found = family.get(identifier)
    return linear if found is None else found


def serialize(activation: Any) -> Any:
    """The JSON of an activation: its name, or Keras's object form for registered functions and objects.

    Raises ValueError, with the way out, for what a file could not bring back: a lambda, a function or class that is
    not registered, an object without `get_config`.

    >>> serialize(swish)
    'silu'
    """
    nameless = callable(activation) and not hasattr(activation, "__name__") and not hasattr(activation, "get_config")
    if nameless and get_registered_name(activation) is None:
        kind = "module" if isinstance(activation, nn.Module) else "object"
        raise ValueError(
            f"Cannot save the {kind} {activation!r} as an activation: it has no get_config(), so a file could not "
            "say how to make it again. Use the name of a built-in activation such as 'relu', or a function or a "
            "class with get_config() under @fanin.saving.register_keras_serializable()."
        )
    return family.serialize(activation)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Activation:
    """The activation that `serialize` described; None gives `linear`.

    Args:
        config: a name or a config.
        custom_objects: names of your own functions and classes, for this call.

    Raises ValueError for a name that is not known.
    """
    found = family.deserialize(config, custom_objects)
    return linear if found is None else found
