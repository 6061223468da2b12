"""Slices of length 1."""

from __future__ import annotations

from typing import Any

import torch

from fanin.layers.along_axes import AlongAxes
from fanin.layers.base.convert import wide_dtype
from fanin.layers.base.layer import family, pure
from fanin.layers.same_shape import SameShape

_SHORTEST = 1e-12  # Keras's bound, which is no argument


@family.entry()
class UnitNormalization(AlongAxes, SameShape):
    """outputs = inputs / max(norm, 1e-12), where norm = sqrt(sum(inputs^2)) is taken along `axis`.

    Args:
        axis: an axis, default the last, or several.
        **kwargs: name, dtype and the other arguments of a layer.

    Inputs and outputs of any shape; zeros stay zeros, with finite gradients. Arithmetic is float32 at least, also under
    mixed_bfloat16. Raises ValueError for axes that the input lacks or that come twice; TypeError for an axis that is no
    integer. After Keras's `UnitNormalization`.

    >>> [round(y, 3) for y in UnitNormalization()(torch.tensor([3.0, 4.0])).tolist()]
    [0.6, 0.8]
    """

    def __init__(self, axis: Any = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self._set_axes(axis)

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """The inputs, scaled."""
        x = inputs.to(wide_dtype(inputs.dtype, self.dtype_policy.compute))
        norm: torch.Tensor = torch.linalg.vector_norm(x, dim=self._axes(x.ndim), keepdim=True)
        y = x / norm.clamp(min=_SHORTEST)
        return y.to(self.dtype_policy.compute)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "axis": self.axis}
