"""The losses as functions of targets and predictions: one value per sample, not reduced.

Shapes: B batch, C classes or outputs. All take tensors, arrays or lists, and compute in the dtype of the predictions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fanin import config
from fanin.losses.base import same_shape, to_floats, to_tensor

_NO_CLASS = -(1 << 62)  # an id that no label has: torch's own default, -100, would silently skip labels of -100


def _pair(y_true: Any, y_pred: Any, what: str) -> tuple[Tensor, Tensor]:
    pred = to_floats(y_pred)
    return same_shape(to_tensor(y_true, pred.device).to(pred.dtype), pred, what)


def _log_probabilities(y_pred: Tensor, from_logits: bool, axis: int) -> Tensor:
    if from_logits:
        return F.log_softmax(y_pred, dim=axis)
    p = y_pred / y_pred.sum(dim=axis, keepdim=True)
    return p.clamp(config.epsilon(), 1.0 - config.epsilon()).log()


def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean((y_true - y_pred)^2) over the last axis: (B, ..., C) -> (B, ...).

    Shapes must be equal, or (B,) and (B, 1); else a ValueError. After Keras.

    >>> mean_squared_error([[0.0, 1.0]], [[0.0, 3.0]])
    tensor([2.])
    """
    true, pred = _pair(y_true, y_pred, "mean_squared_error")
    return (true - pred).square().mean(-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean(|y_true - y_pred|) over the last axis: (B, ..., C) -> (B, ...).

    Shapes must be equal, or (B,) and (B, 1); else a ValueError. After Keras.

    >>> mean_absolute_error([[0.0, 1.0]], [[0.0, 3.0]])
    tensor([1.])
    """
    true, pred = _pair(y_true, y_pred, "mean_absolute_error")
    return (true - pred).abs().mean(-1)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Tensor:
    """Mean over the last axis of e^2 / 2 where |e| <= delta, else delta |e| - delta^2 / 2, with e = y_true - y_pred.

    Shapes must be equal, or (B,) and (B, 1); else a ValueError. After Keras.

    >>> huber([[0.0]], [[3.0]], delta=2.0)
    tensor([4.])
    """
    true, pred = _pair(y_true, y_pred, "huber")
    return F.huber_loss(pred, true, reduction="none", delta=delta).mean(-1)


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor:
    """Mean over `axis` of -(t log p + (1 - t) log(1 - p)), for targets t in [0, 1]: (B, ..., C) -> (B, ...).

    Args:
        y_true: targets in [0, 1], of the shape of `y_pred` ((B,) and (B, 1) match); else a ValueError.
        y_pred: probabilities, cut to [epsilon, 1 - epsilon], or logits.
        from_logits: whether `y_pred` are logits.
        label_smoothing: s in [0, 1]; targets become t (1 - s) + s / 2.
        axis: the axis of the mean.

    After Keras.

    >>> binary_crossentropy([[1.0]], [[0.5]])
    tensor([0.6931])
    """
    true, pred = _pair(y_true, y_pred, "binary_crossentropy")
    if label_smoothing:
        true = true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return F.binary_cross_entropy_with_logits(pred, true, reduction="none").mean(axis)
    # torch's own binary_cross_entropy stops the program at a NaN; this lets it through to whoever watches for it.
    p = pred.clamp(config.epsilon(), 1.0 - config.epsilon())
    return -torch.lerp((-p).log1p(), p.log(), true).mean(axis)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor:
    """-sum(t log p) over the classes, for one-hot or soft targets t: (B, ..., C) -> (B, ...).

    Args:
        y_true: targets of exactly the shape of `y_pred`; else a ValueError.
        y_pred: probabilities, divided by their sum and cut to [epsilon, 1 - epsilon], or logits.
        from_logits: whether `y_pred` are logits.
        label_smoothing: s in [0, 1]; targets become t (1 - s) + s / C.
        axis: the axis of the classes.

    After Keras.

    >>> categorical_crossentropy([[0.0, 1.0]], [[0.5, 0.5]])
    tensor([0.6931])
    """
    true, pred = _pair(y_true, y_pred, "categorical_crossentropy")
    if label_smoothing:
        true = true * (1.0 - label_smoothing) + label_smoothing / pred.shape[axis]
    return -(true * _log_probabilities(pred, from_logits, axis)).sum(axis)


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Tensor:
    """-log p[y_true], for class ids: targets (B, ...) and predictions (B, ..., C) -> (B, ...).

    Args:
        y_true: class ids, of the shape of `y_pred` without `axis`, or with 1 there; else a ValueError.
        y_pred: probabilities, divided by their sum and cut to [epsilon, 1 - epsilon], or logits.
        from_logits: whether `y_pred` are logits.
        ignore_class: an id whose value is 0; any integer. Other ids outside [0, C) are an IndexError.
        axis: the axis of the classes.

    After Keras.

    >>> sparse_categorical_crossentropy([1], [[0.5, 0.5]])
    tensor([0.6931])
    """
    pred = to_floats(y_pred)
    ids = to_tensor(y_true, pred.device)
    axis %= pred.ndim
    if ids.ndim == pred.ndim and ids.shape[axis] == 1:
        ids = ids.squeeze(axis)
    expected = pred.shape[:axis] + pred.shape[axis + 1 :]
    if ids.shape != expected:
        raise ValueError(
            f"sparse_categorical_crossentropy: predictions of shape {tuple(pred.shape)} need class ids of shape "
            f"{tuple(expected)}, found {tuple(ids.shape)}."
        )
    log_p = _log_probabilities(pred, from_logits, axis)
    if axis > 1 or (axis == 0 and pred.ndim > 1):
        log_p = log_p.movedim(axis, 1)
    ignored = _NO_CLASS if ignore_class is None else ignore_class
    return F.nll_loss(log_p, ids.long(), ignore_index=ignored, reduction="none")
