"""Dropout by factors that are normally distributed."""

from __future__ import annotations

import math
from typing import Any

import torch

from fanin import arguments
from fanin.layers.base.layer import family, pure
from fanin.layers.base.seed import Seed
from fanin.layers.same_shape import SameShape


@family.entry()
class GaussianDropout(SameShape):
    """In training, multiplies the inputs by noise of mean 1 and variance rate / (1 - rate); else hands them on.

    The mean and variance are those of Dropout's factors, 0 and 1 / (1 - rate).

    Args:
        rate: between 0 and 1, as Dropout's. Else a ValueError. With 1, whose variance is infinite, a call in training
            is a ValueError.
        seed: an integer for generators of the layer's own; None, the default, for torch's global one.
        **kwargs: name, dtype and the other arguments of a layer.

    A call takes `training`, as Dropout's. Inputs and outputs of any shape. After Keras's `GaussianDropout`; source:
    Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html

    >>> GaussianDropout(0.1)(torch.ones(1, 2), training=False).tolist()
    [[1.0, 1.0]]
    >>> factors = GaussianDropout(0.5, seed=1)(torch.ones(10000), training=True)
    >>> round(factors.mean().item(), 1), round(factors.std().item(), 1)
    (1.0, 1.0)
    """

    casts_integers = True

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = arguments.plain("GaussianDropout: rate", rate, 0, 1, ends="[]")
        self._seed = Seed(seed, "GaussianDropout")
        self.seed = self._seed.number

    @pure
    def call(self, inputs: torch.Tensor, training: bool = False) -> torch.Tensor:
        """The inputs, each times its own factor if `training`."""
        if not training or not self.rate:
            return inputs
        if self.rate == 1:
            raise ValueError(f"Layer {self.name!r}: a rate of 1 asks for noise of infinite variance; take one below 1.")
        generator = self._seed.generator(inputs.device)
        deviation = math.sqrt(self.rate / (1 - self.rate))
        return inputs * torch.empty_like(inputs).normal_(1.0, deviation, generator=generator)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
