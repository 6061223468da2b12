"""Dropout for networks of SELU, which keeps mean and variance."""

from __future__ import annotations

from typing import Any

import torch

from fanin import arguments
from fanin.layers.base.layer import family, pure
from fanin.layers.base.seed import Seed
from fanin.layers.noise import checked_noise_shape, drop_config, shape_to_draw
from fanin.layers.same_shape import SameShape

_LOWEST = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946  # selu(-inf), -1.758


@family.entry()
class AlphaDropout(SameShape):
    """In training, sets a fraction `rate` of the inputs to c = selu(-inf) = -1.758, then restores mean and variance.

    outputs = a * (inputs where kept, else c) + b, with a = ((1 - rate) * (1 + rate * c^2))^(-1/2), b = -a * c * rate:
    inputs of mean 0 and variance 1, as SELU gives them, become outputs of mean 0 and variance 1. Outside training the
    inputs are handed on.

    Args:
        rate: between 0 and 1. Else a ValueError. With 1 all outputs are 0, the limit of the formula.
        noise_shape: the shape of what is drawn, broadcast over the inputs, None for the input's own size: for inputs
            (B, T, I), (None, 1, None) drops the same features in all of a row's time steps. Default: the input's shape.
        seed: an integer for generators of the layer's own; None, the default, for torch's global one.
        **kwargs: name, dtype and the other arguments of a layer.

    A call takes `training`, as Dropout's. Inputs and outputs of any shape. After Keras's `AlphaDropout`; source:
    Klambauer et al. 2017, https://arxiv.org/abs/1706.02515

    >>> layer = AlphaDropout(0.5, seed=1)
    >>> layer(torch.ones(1, 3), training=False).tolist()
    [[1.0, 1.0, 1.0]]
    >>> [round(y, 3) for y in layer(torch.zeros(1, 100), training=True).unique().tolist()]
    [-0.779, 0.779]
    """

    casts_integers = True

    def __init__(self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = arguments.plain("AlphaDropout: rate", rate, 0, 1, ends="[]")
        self.noise_shape = checked_noise_shape(noise_shape, "AlphaDropout: noise_shape")
        self._seed = Seed(seed, "AlphaDropout")
        self.seed = self._seed.number

    @pure
    def call(self, inputs: torch.Tensor, training: bool = False) -> torch.Tensor:
        """The inputs, with some of them at the lower end if `training`."""
        rate = self.rate
        if not training or not rate:
            return inputs
        shape = shape_to_draw(self.noise_shape, tuple(inputs.shape), f"Layer {self.name!r}")
        generator = self._seed.generator(inputs.device)
        keep = torch.empty(shape, device=inputs.device).bernoulli_(1 - rate, generator=generator)
        factor = ((1 - rate) * (1 + rate * _LOWEST**2)) ** -0.5 if rate < 1 else 0.0
        summand = -factor * _LOWEST * rate
        return torch.where(keep > 0, inputs * factor + summand, factor * _LOWEST + summand)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), **drop_config(self)}
