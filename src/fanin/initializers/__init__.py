"""Initializers: the first values of a weight, from its shape and dtype.

Called as `initializer(shape, dtype=None)`; `dtype` is a torch dtype or its name, None for `config.floatx()`. Values are
made on torch's default device. Random ones draw fresh values at every call from torch's global generator, or, given an
integer `seed`, the same values at every call from a generator of their own. They draw in float32 (or float64) and round
to 16 bits at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fanin.initializers.base import Initializer, family
from fanin.initializers.constant import Constant, Identity, Ones, Zeros
from fanin.initializers.random import Orthogonal, RandomNormal, RandomUniform, TruncatedNormal
from fanin.initializers.scaled import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
    compute_fans,
)
from fanin.initializers.stft import STFT

__all__ = [
    "STFT",
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "IdentityInitializer",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "OrthogonalInitializer",
    "RandomNormal",
    "RandomUniform",
    "STFTInitializer",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "compute_fans",
    "constant",
    "deserialize",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "lecun_normal",
    "lecun_uniform",
    "ones",
    "orthogonal",
    "random_normal",
    "random_uniform",
    "serialize",
    "stft",
    "truncated_normal",
    "variance_scaling",
    "zeros",
]

constant = Constant
glorot_normal = GlorotNormal
glorot_uniform = GlorotUniform
he_normal = HeNormal
he_uniform = HeUniform
identity = IdentityInitializer = Identity
lecun_normal = LecunNormal
lecun_uniform = LecunUniform
ones = Ones
orthogonal = OrthogonalInitializer = Orthogonal
random_normal = RandomNormal
random_uniform = RandomUniform
stft = STFTInitializer = STFT
truncated_normal = TruncatedNormal
variance_scaling = VarianceScaling
zeros = Zeros


def get(identifier: Any) -> Callable[..., Tensor] | None:
    """The initializer that `identifier` means.

    Args:
        identifier: None, a name, an Initializer, its class, a config, a function of (shape, dtype), or a tensor or
            array of the values themselves, which becomes a `Constant`.

    Raises ValueError for an unknown name, with near ones, and TypeError for what cannot be called.

    >>> get("glorot_uniform")((3, 2)).shape
    torch.Size([3, 2])
    >>> get(np.array([1.0, 2.0]))((2,)).tolist()
    [1.0, 2.0]
    """
    if isinstance(identifier, (Tensor, np.ndarray, np.generic)):
        return Constant(identifier)
    return family.get(identifier)


def serialize(initializer: Any) -> Any:
    """The JSON of an initializer, in Keras's form; None stays None.

    Raises ValueError, with the way out, for a lambda and for what has no `get_config` or the name of one of fanin's.

    >>> serialize(Zeros())
    {'module': 'keras.initializers', 'class_name': 'Zeros', 'config': {}, 'registered_name': None}
    """
    return family.serialize(initializer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Callable[..., Tensor] | None:
    """The initializer that `serialize` described.

    Args:
        config: a config, a name, or None.
        custom_objects: names of your own functions and classes, for this call.

    Raises ValueError for a name that is not known.
    """
    return family.deserialize(config, custom_objects)
