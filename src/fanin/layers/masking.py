"""Time steps to be left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch

from fanin.layers.base.layer import family, pure
from fanin.layers.constants import constant, constant_like
from fanin.layers.keeps_integers import KeepsIntegers
from fanin.layers.same_shape import SameShape
from fanin.registry import deserialize, serialize


@family.entry()
class Masking(KeepsIntegers, SameShape):
    """Makes a mask (B, ...) of inputs (B, ..., I): False where all I numbers equal `mask_value`; there the output is 0.

    Args:
        mask_value: default 0.
        **kwargs: name, dtype and the other arguments of a layer.

    After Keras's `Masking`.

    >>> x = torch.tensor([[[1.0, 2.0], [9.0, 9.0]]])
    >>> layer = Masking(mask_value=9.0)
    >>> layer(x).tolist(), layer.compute_mask(x).tolist()
    ([[[1.0, 2.0], [0.0, 0.0]]], [[True, False]])
    """

    def __init__(self, mask_value: Any = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.mask_value = mask_value
        self._left_out = constant(mask_value, "Masking: mask_value")

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs (B, ..., I) -> the same, with 0 where the mask is False."""
        return inputs.masked_fill(~self.compute_mask(inputs).unsqueeze(-1), 0)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask (B, ...) of inputs (B, ..., I); one that they carry is not looked at."""
        return (inputs != constant_like(self._left_out, inputs)).any(-1)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "mask_value": serialize(self.mask_value)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer that `get_config` described."""
        return cls(**{**config, "mask_value": deserialize(config.get("mask_value", 0.0))})
