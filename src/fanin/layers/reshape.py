"""Rows in another shape."""

from __future__ import annotations

import math
from typing import Any

import torch

from fanin import arguments
from fanin.layers.base.layer import Layer, family, pure
from fanin.layers.keeps_integers import KeepsIntegers


@family.entry()
class Reshape(KeepsIntegers):
    """(B, ...) -> (B, *target_shape), the numbers of each row in their order.

    Args:
        target_shape: the new shape of a row; one size may be -1, for what is left.
        **kwargs: name, dtype and the other arguments of a layer.

    ValueError for sizes below -1, several -1, and, at a call, for rows of another size. After Keras's `Reshape`.

    >>> Reshape((3, -1))(torch.ones(2, 12)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, target_shape: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.target_shape = _checked_shape(target_shape)
        self.built = type(self).build is Layer.build

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, ...) -> (B, *target_shape)."""
        return inputs.reshape(self.compute_output_shape(inputs.shape))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B, *target_shape), where -1 is worked out; it becomes None where a size of the input is unknown."""
        batch, *sizes = input_shape
        target = self.target_shape
        if any(size is None for size in sizes):
            return batch, *(None if size == -1 else size for size in target)
        have, known = math.prod(sizes), math.prod([size for size in target if size != -1])
        fits = have == known if -1 not in target else known != 0 and have % known == 0
        if not fits:
            raise ValueError(
                f"Layer {self.name!r}: rows of shape {tuple(sizes)} have {have} numbers, which does not fit "
                f"target_shape={target}."
            )
        return batch, *(have // known if size == -1 else size for size in target)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {**super().get_config(), "target_shape": list(self.target_shape)}


def _checked_shape(shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, (list, tuple)) else (None,)
    whole = all(arguments.is_whole(size, -1) for size in sizes)
    if not whole or sizes.count(-1) > 1:
        raise ValueError(f"Reshape: target_shape must be a tuple of sizes, one of which may be -1, found {shape!r}.")
    return tuple(int(size) for size in sizes)
