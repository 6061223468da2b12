"""Inputs behind each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fanin.layers.axes import checked_axes, from_front
from fanin.layers.base.layer import family
from fanin.layers.merge import Merge


@family.entry()
class Concatenate(Merge):
    """The inputs one behind the other along `axis`: (B, 3) and (B, 5) give (B, 8).

    Args:
        axis: default the last.
        **kwargs: name, dtype and the other arguments of a layer.

    ValueError unless the inputs are a list of the same shape but for that axis. The mask of the output is that of the
    inputs, in which an unmasked input is let through. After Keras's `Concatenate`.

    >>> Concatenate()([torch.ones(2, 3), torch.ones(2, 5)]).shape
    torch.Size([2, 8])
    """

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        (self.axis,) = checked_axes([axis], "Concatenate: axis")

    def join(self, inputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
        """[a, b, ...]."""
        return torch.cat(list(inputs), self.axis)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The first shape with the sizes along the axis added up; None where one of them is unknown."""
        shapes = self._shapes(input_shape)
        rank = len(shapes[0])
        (axis,) = from_front([self.axis], rank, f"Layer {self.name!r}")
        if any(len(shape) != rank for shape in shapes):
            raise ValueError(f"Layer {self.name!r} concatenates inputs of one rank, found shapes {shapes}.")
        for place, sizes in enumerate(zip(*shapes, strict=True)):
            known = [size for size in sizes if size is not None]
            if place != axis and any(size != known[0] for size in known):
                raise ValueError(
                    f"Layer {self.name!r}: the shapes {shapes} differ in another axis than {self.axis}, along which "
                    "they are concatenated."
                )
        along = [shape[axis] for shape in shapes]
        total = None if any(size is None for size in along) else sum(size for size in along if size is not None)
        return *shapes[0][:axis], total, *shapes[0][axis + 1 :]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The masks one behind the other, over the last axis reduced to "any"; None if no input has one."""
        masks = [None] if mask is None else self._masks(inputs, mask)
        if all(m is None for m in masks):
            return None
        full = [_full_mask(x, m) for x, m in zip(inputs, masks, strict=True)]
        return torch.cat(full, self.axis).any(-1)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "axis": self.axis}


def _full_mask(x: Any, mask: Any) -> Any:
    """A mask (B, ...) of x (B, ..., U) in the shape of x; all True if there is none."""
    everything = torch.ones_like(x, dtype=torch.bool)
    if mask is None:
        return everything
    return everything & (mask.unsqueeze(-1) if mask.ndim < x.ndim else mask)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Any:
    """`Concatenate(axis, **kwargs)(inputs)`."""
    return Concatenate(axis, **kwargs)(inputs)
