"""Activations: functions that act on a layer's output, under Keras's names, arguments and defaults.

Each takes a float tensor `x` of any shape and returns a tensor of the same shape and dtype, except `glu`, which halves
one axis. All but the softmaxes and `glu` act on every element alone. The formulas are those of Keras 3.15.1; the work
is torch's, and so are the errors for tensors of a wrong dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fanin.activations.along_axis import glu, log_softmax, softmax, sparsemax
from fanin.activations.family import Activation, family
from fanin.activations.of_torch import name_of
from fanin.activations.piecewise import (
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_swish,
    hard_tanh,
    soft_shrink,
    sparse_plus,
    sparse_sigmoid,
    threshold,
)
from fanin.activations.rectifiers import celu, elu, leaky_relu, linear, relu, relu6, selu
from fanin.activations.smooth import (
    exponential,
    gelu,
    log_sigmoid,
    mish,
    sigmoid,
    silu,
    softplus,
    softsign,
    squareplus,
    swish,
    tanh,
    tanh_shrink,
)
from fanin.registry import get_registered_name

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
    """The JSON of an activation: its name, or Keras's object form for functions and objects of your own. PyTorch's,
    such as `torch.relu` and `nn.GELU()`, have the name of the function that computes the same.

    Raises ValueError, with the way out, for what a file could not bring back: a lambda, an object without
    `get_config`, a function with the name of one of fanin's.

    >>> serialize(swish)
    'silu'
    """
    name = name_of(activation)
    if name is not None:
        return name
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
