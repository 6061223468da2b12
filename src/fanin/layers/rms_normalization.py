"""Normalization of each row by its own root mean square."""

from __future__ import annotations

from typing import Any

import torch

from fanin import arguments
from fanin.layers.along_axes import AlongAxes
from fanin.layers.axes import checked_axes, smallest_shape
from fanin.layers.base.convert import wide_dtype
from fanin.layers.base.layer import family, pure
from fanin.layers.base.rule import Ruled


@family.entry()
class RMSNormalization(AlongAxes, Ruled):
    """outputs = inputs / sqrt(mean(inputs^2) + epsilon) * scale, the mean taken along `axis`.

    Shapes: inputs (B, ..., C) -> the same; scale (C,), ones at first, for several axes the sizes of these, in their
    order in the input. Training and inference are the same. Masks end here, as in Keras.

    Args:
        axis: an axis, default the last, or several.
        epsilon: added to the mean square.
        **kwargs: name, dtype, weights and the other arguments of a layer.

    Arithmetic is float32 at least, also under mixed_bfloat16. Raises ValueError for axes that the input lacks, that
    come twice, or whose size is unknown, and for a negative epsilon; TypeError for an axis that is no integer. After
    Keras's `RMSNormalization`; source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467

    >>> layer = RMSNormalization(epsilon=0.0)
    >>> [round(y, 3) for y in layer(torch.tensor([[1.0, 7.0]])).flatten().tolist()]
    [0.2, 1.4]
    """

    def __init__(self, axis: Any = -1, epsilon: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        self._set_axes(axis)
        self.epsilon = arguments.number("RMSNormalization: epsilon", epsilon)
        self._hold_place("scale")

    def build(self, input_shape: Any) -> None:
        """Make the scale for inputs with known sizes on `axis`, which becomes a list."""
        self._fill("scale", self._sizes_along(input_shape), "ones")
        self._use_initial_weights()
        self._settle_axes(input_shape)

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """The inputs, normalized."""
        x = inputs.to(wide_dtype(inputs.dtype, self.dtype_policy.compute))
        axes = self._axes(x.ndim)
        scale: torch.Tensor = self.scale
        # Not torch's rms_norm, whose CPU form takes longer and which wants its axes last.
        factor = torch.rsqrt(x.square().mean(axes, keepdim=True) + self.epsilon)
        y = x * factor * scale.to(x.dtype).view([x.shape[axis] if axis in axes else 1 for axis in range(x.ndim)])
        return y.to(self.dtype_policy.compute)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}

    def _shape_from_state(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        return smallest_shape(checked_axes(self.axis, "axis"), shapes["scale"]) if "scale" in shapes else None
