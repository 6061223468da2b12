"""Normally distributed noise."""

from __future__ import annotations

from typing import Any

import torch

from fanin import arguments
from fanin.layers.base.layer import family, pure
from fanin.layers.base.seed import Seed
from fanin.layers.same_shape import SameShape


@family.entry()
class GaussianNoise(SameShape):
    """In training, adds noise of mean 0 and standard deviation `stddev`; else hands the inputs on.

    Args:
        stddev: between 0 and 1. Else a ValueError.
        seed: an integer for generators of the layer's own; None, the default, for torch's global one.
        **kwargs: name, dtype and the other arguments of a layer.

    A call takes `training`, as Dropout's. Inputs and outputs of any shape. After Keras's `GaussianNoise`.

    >>> GaussianNoise(0.1)(torch.ones(1, 2), training=False).tolist()
    [[1.0, 1.0]]
    """

    casts_integers = True

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.stddev = arguments.plain("GaussianNoise: stddev", stddev, 0, 1, ends="[]")
        self._seed = Seed(seed, "GaussianNoise")
        self.seed = self._seed.number

    @pure
    def call(self, inputs: torch.Tensor, training: bool = False) -> torch.Tensor:
        """The inputs, with noise if `training`."""
        if not training or not self.stddev:
            return inputs
        generator = self._seed.generator(inputs.device)
        return inputs + torch.empty_like(inputs).normal_(0.0, self.stddev, generator=generator)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "stddev": self.stddev, "seed": self.seed}
