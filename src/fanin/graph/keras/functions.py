"""Operations of Keras that are no single function of torch: tensors by position, Keras's options by name.

They are in graphs that come from files, where a recorded torch function would be otherwise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fanin.dtypes import as_dtype
from fanin.graph.tree import as_list

_MOST_PARTS = 4096  # a file says how many tensors a split makes


def where(condition: Tensor, x1: Any, x2: Any) -> Tensor:
    """`x1` where `condition` is not 0, else `x2`."""
    return torch.where(condition.bool(), x1, x2)


def maximum(x1: Any, x2: Any) -> Tensor:
    """The larger of two tensors or numbers, element by element."""
    return torch.maximum(*_tensors(x1, x2))


def minimum(x1: Any, x2: Any) -> Tensor:
    """The smaller of two tensors or numbers, element by element."""
    return torch.minimum(*_tensors(x1, x2))


def _tensors(x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    """Both as tensors of the dtype that an operator would give."""
    dtype = torch.result_type(x1, x2)
    one, two = (x if isinstance(x, Tensor) else torch.tensor(x) for x in (x1, x2))
    return one.to(dtype), two.to(dtype)


def divide_no_nan(x1: Any, x2: Any) -> Tensor:
    """`x1 / x2`, and 0 where `x2` is 0."""
    one, two = _tensors(x1, x2)
    return torch.where(two == 0, 0.0, one / torch.where(two == 0, 1.0, two))


def sort(x: Tensor, axis: int = -1) -> Tensor:
    """The values in ascending order along one axis."""
    return torch.sort(x, dim=axis).values


def flip(x: Tensor, axis: Any = None) -> Tensor:
    """The entries in reverse order, along one axis, several, or all."""
    return torch.flip(x, [*range(x.ndim)] if axis is None else as_list(axis))


def take(x: Tensor, indices: Any, axis: int) -> Tensor:
    """The entries at `indices`, of any shape, along one axis."""
    axis = axis % x.ndim
    chosen = _from_front(x, indices, axis)
    found = torch.index_select(x, axis, chosen.reshape(-1))
    return found.reshape(*x.shape[:axis], *chosen.shape, *x.shape[axis + 1 :])


def take_along_axis(x: Tensor, indices: Any, axis: int) -> Tensor:
    """The entries at `indices`, which are given for every place of the other axes, along one axis."""
    return torch.take_along_dim(x, _from_front(x, indices, axis), dim=axis)


def _from_front(x: Tensor, indices: Any, axis: int) -> Tensor:
    """Indices as torch takes them: of 64 bits, those below 0 counted from the end."""
    chosen = torch.as_tensor(indices, device=x.device).long()
    return torch.where(chosen < 0, chosen + x.shape[axis], chosen)


def split(x: Tensor, indices_or_sections: Any, axis: int = 0) -> tuple[Tensor, ...]:
    """As many equal parts along one axis, or those between the indices."""
    size = x.shape[axis]
    if isinstance(indices_or_sections, int) and (
        not 0 < indices_or_sections <= _MOST_PARTS or size % indices_or_sections
    ):
        raise ValueError(f"an axis of size {size} has no {indices_or_sections} equal parts.")
    return tuple(torch.tensor_split(x, indices_or_sections, dim=axis))


def unstack(x: Tensor, num: int | None = None, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along one axis."""
    if x.shape[axis] > _MOST_PARTS or num not in (None, x.shape[axis]):
        raise ValueError(f"an axis of size {x.shape[axis]} is not unstacked into {num} tensors.")
    return torch.unbind(x, dim=axis)


def one_hot(x: Tensor, num_classes: int, axis: int = -1, dtype: str | None = None) -> Tensor:
    """A new axis of size `num_classes` with 1 at the class and 0 elsewhere; all 0 for a class below 0."""
    classes = torch.arange(num_classes, device=x.device)
    found = (x.long().unsqueeze(-1) == classes).to(torch.get_default_dtype() if dtype is None else as_dtype(dtype))
    return found.movedim(-1, axis)


def transpose(x: Tensor, axes: Any = None) -> Tensor:
    """The axes in another order, by default the reverse."""
    return x.permute(*(reversed(range(x.ndim)) if axes is None else axes))
