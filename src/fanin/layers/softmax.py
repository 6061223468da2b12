"""Softmax as a layer, which heeds a mask."""

from __future__ import annotations

from typing import Any

import torch

from fanin import activations
from fanin.layers.base.layer import family, pure
from fanin.layers.same_shape import SameShape


@family.entry()
class Softmax(SameShape):
    """exp(x) / sum(exp(x)) along `axis`; where a mask is False, 0, and the rest sums to 1.

    Args:
        axis: an axis, default the last, or several.
        **kwargs: name, dtype and the other arguments of a layer.

    A call takes `mask`: True (or a number above 0.5) to keep, of the input's shape or one that broadcasts to it.
    Inputs and outputs of any shape. After Keras's `Softmax`.

    >>> Softmax()(torch.zeros(1, 4), mask=torch.tensor([[True, True, False, False]])).tolist()
    [[0.5, 0.5, 0.0, 0.0]]
    """

    casts_integers = True

    def __init__(self, axis: Any = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    @pure
    def call(self, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Positive numbers that sum to 1 along the axis; a slice without any kept entry is all 0."""
        if mask is None:
            return activations.softmax(inputs, self.axis)
        keep = self._checked(mask, inputs)
        kept = inputs.masked_fill(~keep, torch.finfo(inputs.dtype).min)
        return activations.softmax(kept, self.axis).masked_fill(~keep, 0.0)

    def _checked(self, mask: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        fits = mask.ndim <= inputs.ndim and all(
            size in (1, full) for size, full in zip(reversed(mask.shape), reversed(inputs.shape), strict=False)
        )
        if not fits:
            raise ValueError(
                f"Layer {self.name!r}: mask of shape {tuple(mask.shape)} does not broadcast to inputs of shape "
                f"{tuple(inputs.shape)}."
            )
        return mask if mask.dtype == torch.bool else mask > 0.5

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        axis = list(self.axis) if isinstance(self.axis, (list, tuple)) else self.axis
        return {**super().get_config(), "axis": axis}
