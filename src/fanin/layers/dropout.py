"""Dropout."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fanin import arguments
from fanin.layers.base.layer import family, pure
from fanin.layers.base.seed import Seed
from fanin.layers.noise import checked_noise_shape, drop_config, shape_to_draw
from fanin.layers.same_shape import SameShape


@family.entry()
class Dropout(SameShape):
    """In training, sets a fraction `rate` of the inputs to 0 and divides the rest by 1 - rate; else hands them on.

    Args:
        rate: between 0 and 1. Else a ValueError.
        noise_shape: the shape of what is drawn, broadcast over the inputs, None for the input's own size: for inputs
            (B, T, I), (None, 1, None) drops the same features in all of a row's time steps. Default: the input's shape.
        seed: an integer for generators of the layer's own; None, the default, for torch's global one.
        **kwargs: name, dtype and the other arguments of a layer.

    A call takes `training`; without it the enclosing call's counts, then the mode of the module, which is train unless
    the layer is part of a model. Inputs and outputs of any shape. After Keras's `Dropout`; source: Srivastava et al.
    2014, https://jmlr.org/papers/v15/srivastava14a.html

    >>> layer = Dropout(0.5, seed=1)
    >>> layer(torch.ones(1, 3), training=False).tolist()
    [[1.0, 1.0, 1.0]]
    >>> sorted(set(layer(torch.ones(1, 100), training=True).flatten().tolist()))
    [0.0, 2.0]
    """

    casts_integers = True

    def __init__(self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = arguments.plain("Dropout: rate", rate, 0, 1, ends="[]")
        self.noise_shape = checked_noise_shape(noise_shape, "Dropout: noise_shape")
        self._seed = Seed(seed, "Dropout")
        self.seed = self._seed.number

    @pure
    def call(self, inputs: torch.Tensor, training: bool = False) -> torch.Tensor:
        """The inputs, thinned out if `training`."""
        if not training or not self.rate:
            return inputs
        if self.seed is None and self.noise_shape is None:
            return F.dropout(inputs, self.rate)
        shape = shape_to_draw(self.noise_shape, tuple(inputs.shape), f"Layer {self.name!r}")
        generator = self._seed.generator(inputs.device)
        keep = torch.empty(shape, device=inputs.device).bernoulli_(1 - self.rate, generator=generator)
        return torch.where(keep > 0, inputs / (1 - self.rate or 1.0), 0.0)  # with a rate of 1, nothing is kept

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), **drop_config(self)}
