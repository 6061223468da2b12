"""Layers that join several inputs number by number: Add, Subtract, Multiply, Average, Maximum, Minimum.

Inputs are a list of tensors of one batch size. Their other axes broadcast: from the last axis on, sizes are equal or 1.
A mask of the output lets through what the mask of any input does; without a mask on each input there is none.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fanin.graph.tree import as_list
from fanin.layers.base.layer import family, pure
from fanin.layers.keeps_integers import KeepsIntegers

Shape = tuple[int | None, ...]


class Merge(KeepsIntegers):
    """The base of layers that take a list of tensors: checks the shapes, lines up the axes. Subclasses write `join`.

    After Keras's `Merge`.
    """

    supports_masking = True

    def join(self, inputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
        """One tensor from several of one rank; each mask has the axes of its input, the last of size 1."""
        raise NotImplementedError(f"Layer {type(self).__name__} has no `join` method.")

    def build(self, input_shape: Any) -> None:
        """Compare the shapes: a ValueError unless they are a list, have one batch size and broadcast."""
        self.compute_output_shape(input_shape)

    @pure
    def call(self, inputs: Any, mask: Any = None) -> Tensor:
        """A list of tensors -> one tensor of their common shape."""
        self.compute_output_shape([tuple(x.shape) for x in self._listed(inputs)])
        masks = [None] * len(inputs) if mask is None else self._masks(inputs, mask)
        rank = max(x.ndim for x in inputs)
        wide = [None if m is None else _widened(m.unsqueeze(-1), rank) for m in masks]
        return self.join([_widened(x, rank) for x in inputs], wide)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The common shape; None where a size of an input is unknown. ValueError where shapes do not fit."""
        shapes = self._shapes(input_shape)
        batches = [shape[0] for shape in shapes if shape[0] is not None]
        if any(size != batches[0] for size in batches):
            raise ValueError(f"Layer {self.name!r}: inputs of different batch sizes cannot be merged, found {shapes}.")
        sizes = (shape[:0:-1] for shape in shapes)  # from the last axis on, without the batch
        joined = [self._joined_size(column, shapes) for column in itertools.zip_longest(*sizes, fillvalue=1)]
        return batches[0] if batches else None, *reversed(joined)

    def _joined_size(self, sizes: tuple[int | None, ...], shapes: list[Shape]) -> int | None:
        if any(size is None for size in sizes):
            return None
        wide = [size for size in sizes if size != 1]
        if any(size != wide[0] for size in wide):
            raise ValueError(f"Layer {self.name!r}: the shapes {shapes} do not broadcast.")
        return wide[0] if wide else 1

    def _listed(self, inputs: Any) -> Any:
        if not isinstance(inputs, (list, tuple)) or not inputs:
            raise ValueError(f"Layer {self.name!r} takes a list of at least one tensor, found {_kind(inputs)}.")
        return inputs

    def _shapes(self, input_shape: Any) -> list[Shape]:
        listed = isinstance(input_shape, (list, tuple)) and len(input_shape) > 0
        if not listed or not all(isinstance(shape, (list, tuple)) and len(shape) > 0 for shape in input_shape):
            raise ValueError(
                f"Layer {self.name!r} takes a list of at least one tensor with a batch, found shape {input_shape}."
            )
        return [tuple(shape) for shape in input_shape]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """What any mask lets through; None unless every input has one."""
        masks: list[Any] = [None] if mask is None else self._masks(inputs, mask)
        if any(m is None for m in masks):
            return None
        rank = max(m.ndim for m in masks)
        return functools.reduce(operator.or_, (_widened(m, rank) for m in masks))

    def _masks(self, inputs: Any, mask: Any) -> list[Any]:
        masks = as_list(mask)
        if len(masks) != len(self._listed(inputs)):
            raise ValueError(
                f"Layer {self.name!r}: expected a mask or None for each of {len(inputs)} inputs, found {len(masks)}."
            )
        return masks


def _widened(x: Any, rank: int) -> Any:
    """x (B, ...) of that rank, by axes of size 1 after the batch."""
    for _ in range(rank - x.ndim):
        x = x.unsqueeze(1)
    return x


def _kind(inputs: Any) -> str:
    return f"a tensor of shape {tuple(inputs.shape)}" if hasattr(inputs, "shape") else repr(inputs)


@family.entry()
class Add(Merge):
    """The sum of the inputs. After Keras's `Add`.

    >>> Add()([torch.ones(1, 2), torch.ones(1, 2)]).tolist()
    [[2.0, 2.0]]
    """

    def join(self, inputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
        """a + b + ..."""
        return functools.reduce(torch.add, inputs)


@family.entry()
class Subtract(Merge):
    """The first of two inputs minus the second. Another number of inputs is a ValueError. After Keras's `Subtract`.

    >>> Subtract()([torch.ones(1, 2), torch.ones(1, 2)]).tolist()
    [[0.0, 0.0]]
    """

    def join(self, inputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
        """a - b."""
        return inputs[0] - inputs[1]

    def _shapes(self, input_shape: Any) -> list[Shape]:
        shapes = super()._shapes(input_shape)
        if len(shapes) != 2:
            raise ValueError(f"Layer {self.name!r} subtracts one input from another, found {len(shapes)} inputs.")
        return shapes


@family.entry()
class Multiply(Merge):
    """The product of the inputs. Where an input is masked, it counts as 1; where all are, the output is 0.

    After Keras's `Multiply`.

    >>> Multiply()([torch.full((1, 2), 3.0), torch.full((1, 2), 2.0)]).tolist()
    [[6.0, 6.0]]
    """

    def join(self, inputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
        """a * b * ..."""
        kept = [x if mask is None else x.masked_fill(~mask, 1) for x, mask in zip(inputs, masks, strict=True)]
        product = functools.reduce(torch.mul, kept)
        given = [mask for mask in masks if mask is not None]
        if len(given) < len(masks):
            return product
        return product.masked_fill(~functools.reduce(torch.logical_or, given), 0)


@family.entry()
class Average(Merge):
    """The mean of the inputs; integers become floats. After Keras's `Average`.

    >>> Average()([torch.zeros(1, 2), torch.ones(1, 2)]).tolist()
    [[0.5, 0.5]]
    """

    casts_integers = True

    def join(self, inputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
        """(a + b + ...) / n."""
        return functools.reduce(torch.add, inputs) / len(inputs)


@family.entry()
class Maximum(Merge):
    """The largest of the inputs, number by number; masked ones count only where all are. After Keras's `Maximum`.

    >>> Maximum()([torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 3.0]])]).tolist()
    [[2.0, 4.0]]
    """

    def join(self, inputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
        """max(a, b, ...)."""
        return _choose(torch.maximum, inputs, masks)


@family.entry()
class Minimum(Merge):
    """The smallest of the inputs, number by number; masked ones count only where all are. After Keras's `Minimum`.

    >>> Minimum()([torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 3.0]])]).tolist()
    [[1.0, 3.0]]
    """

    def join(self, inputs: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
        """min(a, b, ...)."""
        return _choose(torch.minimum, inputs, masks)


def _choose(
    choose: Callable[[Tensor, Tensor], Tensor], inputs: Sequence[Tensor], masks: Sequence[Tensor | None]
) -> Tensor:
    """`choose` from left to right, where a masked side gives way to the other."""
    best, seen = inputs[0], masks[0]
    for x, mask in zip(inputs[1:], masks[1:], strict=True):
        x = x if mask is None else torch.where(mask, x, best)
        best = choose(best if seen is None else torch.where(seen, best, x), x)
        seen = None if seen is None or mask is None else seen | mask
    return best


# --- as functions -------------------------------------------------------------------------------------------


def add(inputs: Any, **kwargs: Any) -> Any:
    """`Add(**kwargs)(inputs)`."""
    return Add(**kwargs)(inputs)


def subtract(inputs: Any, **kwargs: Any) -> Any:
    """`Subtract(**kwargs)(inputs)`."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Any, **kwargs: Any) -> Any:
    """`Multiply(**kwargs)(inputs)`."""
    return Multiply(**kwargs)(inputs)


def average(inputs: Any, **kwargs: Any) -> Any:
    """`Average(**kwargs)(inputs)`."""
    return Average(**kwargs)(inputs)


def maximum(inputs: Any, **kwargs: Any) -> Any:
    """`Maximum(**kwargs)(inputs)`."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Any, **kwargs: Any) -> Any:
    """`Minimum(**kwargs)(inputs)`."""
    return Minimum(**kwargs)(inputs)
