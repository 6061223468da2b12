"""Losses that others wrote: plain functions, and the losses of `torch.nn`, which take (input, target)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fanin.losses.base import Loss, family, same_rank, same_shape, to_tensor
from fanin.losses.targets import check_binary, check_class_ids, check_finite
from fanin.registry import deserialize, serialize, snake_case

_CLASS_IDS = {"CrossEntropyLoss", "NLLLoss", "NLLLoss2d", "MultiMarginLoss",
              "cross_entropy", "nll_loss", "multi_margin_loss"}  # fmt: skip
_BINARY = {"BCELoss", "BCEWithLogitsLoss", "binary_cross_entropy", "binary_cross_entropy_with_logits"}
_NUMBERS = {"MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"}


@family.entry()
class LossFunctionWrapper(Loss):
    """A loss from any function of (y_true, y_pred).

    Args:
        fn: gives values per sample, (B,) or (B, ...), or one number for the batch.
        reduction, dtype: see `Loss`.
        name: the function's own by default.
        **kwargs: passed to `fn` at every call.

    Saved when `fn` is registered (`register_keras_serializable`). After Keras, where (N,) and (N, 1) match too.

    >>> LossFunctionWrapper(lambda y_true, y_pred: (y_true - y_pred).abs(), name="gap")([[1.0]], [[3.0]])
    tensor(2.)
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        super().__init__(name or getattr(fn, "__name__", None), reduction, dtype)
        self.fn = fn
        self.kwargs = kwargs

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """What `fn` gives."""
        true, pred = same_rank(y_true, y_pred)
        return to_tensor(self.fn(true, pred, **self.kwargs), pred.device)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {**super().get_config(), "fn": serialize(self.fn), **serialize(self.kwargs)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """The loss that `get_config` described."""
        return cls(**{**config, "fn": deserialize(config["fn"])})


class TorchLoss(Loss):
    """A loss of `torch.nn` or `torch.nn.functional`, called in torch's order: (input, target).

    Args:
        loss: such as `torch.nn.CrossEntropyLoss()` or `torch.nn.functional.mse_loss`. With torch's default
            reduction it gives one number for the batch, and takes no sample weights; with reduction="none" its
            values are averaged here.
        reduction, name, dtype: see `Loss`.

    Class ids may come as (B, 1) and as whole floats. Raises ValueError for a loss of more than two tensors. It is
    not saved in files: use the loss of this package for that.

    >>> import torch
    >>> TorchLoss(torch.nn.CrossEntropyLoss())([1], [[0.0, 0.0]])
    tensor(0.6931)
    """

    def __init__(
        self,
        loss: Callable[..., Tensor],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ):
        self.kind = str(getattr(loss, "__name__", type(loss).__name__))
        super().__init__(name or snake_case(self.kind), reduction, dtype)
        arguments = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters.values()
        needed = [a.name for a in arguments if a.default is a.empty and a.kind is not a.VAR_KEYWORD]
        if len(needed) != 2:
            raise ValueError(f"{self.kind} takes ({', '.join(needed)}); a loss of a model takes (input, target).")
        self.loss = loss

    def cast_targets(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Class ids as int64, all else in the dtype of the predictions."""
        return y_true.long() if self._takes_ids(y_true.shape, y_pred.shape) else y_true.to(y_pred.dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """What torch's loss gives for (y_pred, y_true)."""
        if self._takes_ids(y_true.shape, y_pred.shape):
            if y_true.ndim == y_pred.ndim and y_true.ndim > 1:
                y_true = y_true.squeeze(1)
            return self.loss(y_pred, y_true)
        y_true, y_pred = same_shape(y_true, y_pred, self.name)
        return self.loss(y_pred, y_true)

    def _takes_ids(self, y_shape: Sequence[int], output_shape: Sequence[int | None]) -> bool:
        soft = self.kind in ("CrossEntropyLoss", "cross_entropy") and list(y_shape[1:]) == list(output_shape[1:])
        return self.kind in _CLASS_IDS and not soft

    def check_targets(self, y: Any, output_shape: Sequence[int | None], name: str = "y") -> None:
        """The check of this package's loss of the same meaning; else a `DataError`."""
        if self._takes_ids(y.shape, output_shape):
            check_class_ids(
                y, output_shape, name, getattr(self.loss, "ignore_index", None), min(1, len(output_shape) - 1)
            )
        elif self.kind in _BINARY:
            check_binary(y, output_shape, name)
        elif self.kind in _NUMBERS or self.kind in _CLASS_IDS:
            check_finite(y, output_shape, name)
        else:
            super().check_targets(y, output_shape, name)

    def get_config(self) -> dict[str, Any]:
        """A ValueError: files hold this package's losses only."""
        raise ValueError(f"A file cannot hold torch's {self.kind}. Use the loss of fanin.losses with the same meaning.")


def is_torch_loss(identifier: Any) -> bool:
    """Whether this is a loss module or class of `torch.nn`, or a function of `torch.nn.functional`."""
    if inspect.isclass(identifier):
        return issubclass(identifier, torch.nn.modules.loss._Loss)
    return isinstance(identifier, torch.nn.modules.loss._Loss) or (
        callable(identifier) and getattr(identifier, "__module__", None) == "torch.nn.functional"
    )
