"""Inputs in another range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch

from fanin.layers.base.layer import Layer, family, pure
from fanin.layers.constants import constant, constant_like
from fanin.registry import deserialize, serialize


@family.entry()
class Rescaling(Layer):
    """output = inputs * scale + offset, in the layer's compute dtype: Rescaling(1 / 255) makes 0...1 of pixels 0...255.

    Args:
        scale: a number, or numbers that broadcast over the last axes of the inputs.
        offset: the same, default 0.
        **kwargs: name, dtype and the other arguments of a layer.

    Inputs and outputs of any shape; integers become floats. After Keras's `Rescaling`.

    >>> Rescaling(1 / 255)(torch.tensor([[0, 255]], dtype=torch.uint8)).tolist()
    [[0.0, 1.0]]
    """

    casts_integers = True
    supports_masking = True

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset
        self._factor = constant(scale, "Rescaling: scale")
        self._summand = constant(offset, "Rescaling: offset")

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs * scale + offset."""
        outputs: torch.Tensor = inputs * constant_like(self._factor, inputs) + constant_like(self._summand, inputs)
        return outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "scale": serialize(self.scale), "offset": serialize(self.offset)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer that `get_config` described."""
        numbers = {key: deserialize(config[key]) for key in ("scale", "offset") if key in config}
        return cls(**{**config, **numbers})
