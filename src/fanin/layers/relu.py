"""The rectifiers without weights: ReLU, LeakyReLU and ELU."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from fanin import activations, arguments
from fanin.layers.base.layer import family, pure
from fanin.layers.same_shape import SameShape


@family.entry()
class ReLU(SameShape):
    """max(x, 0); in general min(x, max_value) above the threshold and negative_slope * (x - threshold) below it.

    Args:
        max_value: the largest output; default None, no limit.
        negative_slope: the slope below the threshold, default 0.
        threshold: where the slope changes, default 0.
        **kwargs: name, dtype and the other arguments of a layer.

    ValueError for negative arguments. Inputs and outputs of any shape. After Keras's `ReLU`.

    >>> ReLU(max_value=1.0, negative_slope=0.5)(torch.tensor([[-2.0, 0.5, 3.0]])).tolist()
    [[-1.0, 0.5, 1.0]]
    """

    casts_integers = True

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.max_value = None if max_value is None else arguments.plain("ReLU: max_value", max_value)
        self.negative_slope = arguments.plain("ReLU: negative_slope", negative_slope)
        self.threshold = arguments.plain("ReLU: threshold", threshold)

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """The rectified inputs."""
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        own = {"max_value": self.max_value, "negative_slope": self.negative_slope, "threshold": self.threshold}
        return {**super().get_config(), **own}


@family.entry()
class LeakyReLU(SameShape):
    """x where x > 0, else negative_slope * x.

    Args:
        negative_slope: default 0.3; ValueError if negative. Keras 2's name `alpha` is taken, with a warning.
        **kwargs: name, dtype and the other arguments of a layer.

    Inputs and outputs of any shape. After Keras's `LeakyReLU`.

    >>> LeakyReLU(0.5)(torch.tensor([[-2.0, 3.0]])).tolist()
    [[-1.0, 3.0]]
    """

    casts_integers = True

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any):
        if "alpha" in kwargs:
            negative_slope = kwargs.pop("alpha")
            warnings.warn("LeakyReLU: alpha is called negative_slope now.", stacklevel=2)
        super().__init__(**kwargs)
        self.negative_slope = arguments.plain("LeakyReLU: negative_slope", negative_slope)

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """The rectified inputs."""
        return activations.leaky_relu(inputs, self.negative_slope)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "negative_slope": self.negative_slope}


@family.entry()
class ELU(SameShape):
    """x where x > 0, else alpha * (exp(x) - 1).

    Args:
        alpha: default 1.
        **kwargs: name, dtype and the other arguments of a layer.

    Inputs and outputs of any shape. After Keras's `ELU`.

    >>> ELU()(torch.tensor([[0.0, 3.0]])).tolist()
    [[0.0, 3.0]]
    """

    casts_integers = True

    def __init__(self, alpha: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = arguments.finite("ELU: alpha", alpha)

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """The rectified inputs."""
        return activations.elu(inputs, self.alpha)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "alpha": self.alpha}
