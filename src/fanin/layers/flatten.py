"""All axes of a row as one."""

from __future__ import annotations

import math
from typing import Any

import torch

from fanin.layers.base.input_spec import InputSpec
from fanin.layers.base.layer import family, pure
from fanin.layers.keeps_integers import KeepsIntegers


@family.entry()
class Flatten(KeepsIntegers):
    """(B, d1, ..., dn) -> (B, d1 * ... * dn); (B,) -> (B, 1).

    Args:
        data_format: "channels_last", which None, the default, means; with "channels_first", (B, c, d1, ..., dn) comes
            out in the order that (B, d1, ..., dn, c) would. Else a ValueError.
        **kwargs: name, dtype and the other arguments of a layer.

    After Keras's `Flatten`.

    >>> Flatten()(torch.ones(2, 28, 28)).shape
    torch.Size([2, 784])
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if data_format not in (None, "channels_last", "channels_first"):
            raise ValueError(
                f"Flatten: data_format must be 'channels_last', 'channels_first' or None, found {data_format!r}."
            )
        self.data_format = data_format or "channels_last"
        self.input_spec = InputSpec(min_ndim=1)

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, ...) -> (B, size of a row)."""
        if self.data_format == "channels_first" and inputs.ndim > 1:
            inputs = inputs.movedim(1, -1)
        return inputs.reshape(inputs.shape[0], math.prod(inputs.shape[1:]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B, size of a row); None where a size is unknown."""
        batch, *sizes = input_shape
        return batch, None if any(size is None for size in sizes) else math.prod(sizes)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "data_format": self.data_format}
