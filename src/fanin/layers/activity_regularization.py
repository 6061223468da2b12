"""A penalty on what passes through."""

from __future__ import annotations

from typing import Any

import torch

from fanin import regularizers
from fanin.layers.base.layer import family, pure
from fanin.layers.keeps_integers import KeepsIntegers
from fanin.layers.same_shape import SameShape


@family.entry()
class ActivityRegularization(KeepsIntegers, SameShape):
    """output = inputs; each call adds (l1 * sum(|inputs|) + l2 * sum(inputs^2)) / B to `losses`, B the batch size.

    Args:
        l1: default 0.
        l2: default 0.
        **kwargs: name, dtype and the other arguments of a layer.

    Inputs and outputs of any shape. After Keras's `ActivityRegularization`.

    >>> layer = ActivityRegularization(l1=0.5)
    >>> _ = layer(torch.ones(2, 3))
    >>> layer.losses[0].item()
    1.5
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any):
        penalty = regularizers.L1L2(l1, l2)
        super().__init__(activity_regularizer=penalty, **kwargs)
        self.l1, self.l2 = penalty.l1, penalty.l2

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """The inputs."""
        return inputs

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        config = super().get_config()
        config.pop("activity_regularizer")
        return {**config, "l1": self.l1, "l2": self.l2}
