"""What a loss is: values per sample, weighted, masked and reduced to one number.

::

    y_true, y_pred --call--> values (B, ...) --x sample_weight, mask--> --reduction--> loss ()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fanin import config
from fanin.dtypes import as_dtype, as_policy, dtype_name
from fanin.errors import DataError
from fanin.masks import both, get_mask
from fanin.registry import Family, snake_case

REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None)


def to_tensor(value: Any, device: torch.device | None = None) -> Tensor:
    """A tensor from a tensor, array, number or nested list, sharing memory where that is safe; tensors stay where they
    are unless a device is given."""
    if isinstance(value, Tensor) and device is None:
        return value
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        value = value.copy()
    return torch.as_tensor(value, device=device)


def to_floats(value: Any) -> Tensor:
    """`to_tensor`, with whole numbers and booleans turned into the default float dtype."""
    tensor = to_tensor(value)
    return tensor if tensor.is_floating_point() else tensor.to(as_dtype(config.floatx()))


def same_rank(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Make (N,) and (N, 1) agree, as Keras does: a last dimension of 1 is added to a vector or dropped elsewhere."""
    if first.ndim == second.ndim + 1 and first.shape[-1] == 1:
        return (first, second.unsqueeze(-1)) if second.ndim == 1 else (first.squeeze(-1), second)
    if second.ndim == first.ndim + 1 and second.shape[-1] == 1:
        return (first.unsqueeze(-1), second) if first.ndim == 1 else (first, second.squeeze(-1))
    return first, second


def same_shape(y_true: Tensor, y_pred: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """`same_rank`, then insist on equal shapes: what only fits by broadcasting is a ValueError that shows both."""
    true, pred = same_rank(y_true, y_pred)
    if true.shape != pred.shape:
        raise ValueError(
            f"{what}: y_true has shape {tuple(y_true.shape)} and y_pred {tuple(y_pred.shape)}; they must be equal "
            "(only a last dimension of 1 may be missing; nothing is broadcast)."
        )
    return true, pred


def align_weights(values: Tensor, sample_weight: Any, what: str) -> Tensor:
    """Sample weights shaped to multiply `values` (B, ...): one per row, (B,) or (B, 1), or one per value.

    Returns a tensor of the rank of `values`, or a scalar. Another shape is a ValueError that shows both.
    """
    weight = to_tensor(sample_weight, values.device).to(values.dtype)
    shape = tuple(weight.shape)
    while weight.ndim > values.ndim and weight.shape[-1] == 1:
        weight = weight.squeeze(-1)
    if weight.ndim == 0:
        return weight
    if values.ndim == 0:
        raise ValueError(f"{what} gives one value for the whole batch, so sample_weight of shape {shape} cannot apply.")
    fits = weight.ndim <= values.ndim and weight.shape[0] == values.shape[0]
    if not fits or any(w not in (1, v) for w, v in zip(weight.shape[1:], values.shape[1:], strict=False)):
        raise ValueError(f"{what}: sample_weight of shape {shape} does not fit values of shape {tuple(values.shape)}.")
    return weight.reshape(*weight.shape, *[1] * (values.ndim - weight.ndim))


def divide_or_zero(total: Tensor, divisor: Tensor) -> Tensor:
    """`total / divisor`, and 0 (with gradient 0) where the divisor is 0."""
    empty = divisor == 0
    return torch.where(empty, 0.0, total / torch.where(empty, 1.0, divisor))


def mask_for(values: Tensor, y_pred: Any) -> Tensor | None:
    """The mask that predictions carry, shaped like `values` (B, ...); None if they carry none."""
    mask = get_mask(y_pred)
    if mask is None:
        return None
    if mask.ndim > values.ndim and mask.shape[-1] == 1:
        mask = mask.squeeze(-1)
    return mask.reshape(*mask.shape, *[1] * (values.ndim - mask.ndim)).expand_as(values)


def reduce_values(
    values: Tensor,
    sample_weight: Any = None,
    mask: Tensor | None = None,
    reduction: str | None = "sum_over_batch_size",
    what: str = "loss",
) -> Tensor:
    """Weight, mask and reduce the values of a loss.

    With N values v, weights w and a mask k of 0 and 1 (both 1 where not given), K = sum(k):

    =========================  ================================
    sum_over_batch_size, mean  sum(v w k) / K   (K = N unmasked)
    mean_with_sample_weight    sum(v w k) / sum(w k)
    sum                        sum(v w k)
    none, None                 v w k, not reduced
    =========================  ================================

    A division by zero gives 0. A scalar is returned as it is. The table is Keras's (`losses/loss.py`).
    """
    weight = None if sample_weight is None else align_weights(values, sample_weight, what)
    if weight is not None:
        values = values * weight
    if mask is not None:
        values = torch.where(mask, values, 0.0)
    if reduction in (None, "none") or values.ndim == 0:
        return values
    if reduction == "sum" or values.numel() == 0:
        return values.sum()
    if mask is None and (weight is None or reduction != "mean_with_sample_weight"):
        return values.mean()
    total = values.sum()
    if reduction == "mean_with_sample_weight" and weight is not None:
        weight = weight.expand_as(values)
        return divide_or_zero(total, (weight if mask is None else torch.where(mask, weight, 0.0)).sum())
    assert mask is not None
    return divide_or_zero(total, mask.sum().to(values.dtype))


class Loss:
    """Base of all losses. A subclass writes `call(y_true, y_pred)`, the values per sample.

    Args:
        name: a name for messages and configs; by default the class's own, in snake case and unique.
        reduction: "sum_over_batch_size" (default, the sum over the values divided by their number, whatever the
            weights are), "mean" (the same), "mean_with_sample_weight" (divided by the sum of the weights), "sum",
            "none" or None.
        dtype: the dtype it computes in. By default that of the predictions, but never less exact than `floatx()`.

    Raises ValueError for an unknown reduction. After Keras's `keras.losses.Loss`.

    >>> class Cubed(Loss):
    ...     def call(self, y_true, y_pred):
    ...         return (y_true - y_pred).abs().pow(3).mean(-1)
    >>> Cubed()(torch.zeros(2, 1), torch.tensor([[1.0], [2.0]]))
    tensor(4.5000)
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: Any = None):
        if reduction not in REDUCTIONS:
            shown = ", ".join(repr(r) for r in REDUCTIONS)
            raise ValueError(f"Unknown reduction {reduction!r}; expected one of {shown}.")
        self.name = name or config.unique_name(snake_case(type(self).__name__))
        self.reduction = reduction
        self._dtype: torch.dtype | None = None if dtype is None else as_policy(dtype).compute

    @property
    def dtype(self) -> str:
        """The name of the dtype it computes in, unless predictions are more exact."""
        return config.floatx() if self._dtype is None else dtype_name(self._dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The values per sample, (B,) or (B, ...), of targets and predictions. Written by the subclass."""
        raise NotImplementedError(f"{type(self).__name__} does not define call(y_true, y_pred).")

    def mask(self, y_true: Tensor, y_pred: Tensor) -> Tensor | None:
        """Which values of `call` count, as booleans of its shape; None (the default) for all."""
        return None

    def cast_targets(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The targets in the dtype that `call` gets them in: that of the predictions."""
        return y_true.to(y_pred.dtype)

    def prepare(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
        """Both as tensors on one device, in the dtypes that `call` expects."""
        pred = to_floats(y_pred)
        pred = pred.to(self._dtype or torch.promote_types(pred.dtype, as_dtype(config.floatx())))
        return self.cast_targets(to_tensor(y_true, pred.device), pred), pred

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """The reduced loss.

        Args:
            y_true: targets; tensor, array or list.
            y_pred: predictions, (B, ...); where they carry a mask, only what it lets through counts.
            sample_weight: weights, one per row or one per value; None for 1.
        """
        true, pred = self.prepare(y_true, y_pred)
        values = self.call(true, pred)
        mask = both(self.mask(true, pred), mask_for(values, y_pred))
        return reduce_values(values, sample_weight, mask, self.reduction, self.name)

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """Look at all targets once, before training, and refuse those that cannot be learned.

        Args:
            y: every target, (N, ...), an array or tensor on the host.
            output_shape: the model's, (None, ..., C).
            name: what to call `y` in messages.

        Raises `DataError` naming `name`, the first bad row and value, and what was expected. This base class only
        asks for rows; the losses of this package look closer.
        """
        if len(getattr(y, "shape", (0,))) == 0:
            raise DataError(f"{name} is a single number; expected one target per row.")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data; `dtype` only where it was given."""
        found: dict[str, Any] = {"name": self.name, "reduction": self.reduction}
        return found if self._dtype is None else {**found, "dtype": dtype_name(self._dtype)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """The loss that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name!r} reduction={self.reduction!r}>"


LossFunction = Callable[..., Tensor]
LossClass = TypeVar("LossClass", bound=type[Loss])

family: Family[LossFunction] = Family("loss", "keras.losses")
family.add(Loss)
classes: dict[LossFunction, type[Loss]] = {}  # function -> what `resolve` makes of it


def class_for(function: LossFunction) -> Callable[[LossClass], LossClass]:
    """Decorator: enter a class in the family, and in `classes` for that function."""

    def enter(cls: LossClass) -> LossClass:
        classes[function] = cls
        return family.add(cls)

    return enter


def kind_by_shapes(output_shape: Sequence[int | None], y_shape: Sequence[int | None]) -> str:
    """Which crossentropy and accuracy fit, by Keras's rule: "binary", "sparse" or "categorical".

    One output unit: binary. Targets of lower rank, or with a last dimension of 1: sparse. Else categorical.
    Only the ranks and last dimensions are looked at.
    """
    if output_shape[-1] == 1:
        return "binary"
    return "sparse" if len(y_shape) < len(output_shape) or y_shape[-1] == 1 else "categorical"
