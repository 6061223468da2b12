"""The losses as functions of targets and predictions: one value per sample, not reduced.

Shapes: B batch, C classes or outputs. All take tensors, arrays or lists, and compute in the dtype of the predictions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fanin import config
from fanin.losses.base import family, same_shape, to_floats, to_tensor

_NO_CLASS = -(1 << 62)  # an id that no label has: torch's own default, -100, would silently skip labels of -100


def _pair(y_true: Any, y_pred: Any, what: str) -> tuple[Tensor, Tensor]:
    pred = to_floats(y_pred)
    return same_shape(to_tensor(y_true, pred.device).to(pred.dtype), pred, what)


def _log_probabilities(y_pred: Tensor, from_logits: bool, axis: int) -> Tensor:
    if from_logits:
        return F.log_softmax(y_pred, dim=axis)
    p = y_pred / y_pred.sum(dim=axis, keepdim=True)
    return p.clamp(config.epsilon(), 1.0 - config.epsilon()).log()


@family.entry("mse", "MSE")
def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean((y_true - y_pred)^2) over the last axis: (B, ..., C) -> (B, ...).

    Shapes must be equal, or (B,) and (B, 1); else a ValueError. After Keras.

    >>> mean_squared_error([[0.0, 1.0]], [[0.0, 3.0]])
    tensor([2.])
    """
    true, pred = _pair(y_true, y_pred, "mean_squared_error")
    return (true - pred).square().mean(-1)


@family.entry("mae", "MAE")
def mean_absolute_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean(|y_true - y_pred|) over the last axis: (B, ..., C) -> (B, ...).

    Shapes must be equal, or (B,) and (B, 1); else a ValueError. After Keras.

    >>> mean_absolute_error([[0.0, 1.0]], [[0.0, 3.0]])
    tensor([1.])
    """
    true, pred = _pair(y_true, y_pred, "mean_absolute_error")
    return (true - pred).abs().mean(-1)


@family.entry()
def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Tensor:
    """Mean over the last axis of e^2 / 2 where |e| <= delta, else delta |e| - delta^2 / 2, with e = y_true - y_pred.

    Shapes must be equal, or (B,) and (B, 1); else a ValueError. After Keras.

    >>> huber([[0.0]], [[3.0]], delta=2.0)
    tensor([4.])
    """
    true, pred = _pair(y_true, y_pred, "huber")
    return F.huber_loss(pred, true, reduction="none", delta=delta).mean(-1)


@family.entry("mape", "MAPE")
def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Tensor:
    """100 mean(|y_true - y_pred| / max(|y_true|, epsilon)) over the last axis: (B, ..., C) -> (B, ...).

    Shapes must be equal, or (B,) and (B, 1); else a ValueError. After Keras.

    >>> mean_absolute_percentage_error([[2.0, 4.0]], [[1.0, 4.0]])
    tensor([25.])
    """
    true, pred = _pair(y_true, y_pred, "mean_absolute_percentage_error")
    return 100.0 * ((true - pred) / true.abs().clamp(min=config.epsilon())).abs().mean(-1)


@family.entry("msle", "MSLE")
def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Tensor:
    """mean((log(1 + y_true) - log(1 + y_pred))^2) over the last axis: (B, ..., C) -> (B, ...).

    Both are first raised to at least epsilon, so negative values count as 0. Shapes must be equal, or (B,) and
    (B, 1); else a ValueError. After Keras.

    >>> mean_squared_logarithmic_error([[0.0, 1.0]], [[0.0, 3.0]])
    tensor([0.2402])
    """
    true, pred = _pair(y_true, y_pred, "mean_squared_logarithmic_error")
    low = config.epsilon()
    return (pred.clamp(min=low).log1p() - true.clamp(min=low).log1p()).square().mean(-1)


@family.entry()
def log_cosh(y_true: Any, y_pred: Any) -> Tensor:
    """mean(log(cosh(y_pred - y_true))) over the last axis: (B, ..., C) -> (B, ...).

    About e^2 / 2 for small errors e and |e| - log 2 for large ones. Shapes must be equal, or (B,) and (B, 1); else a
    ValueError. After Keras.

    >>> log_cosh([[0.0]], [[1.0]])
    tensor([0.4338])
    """
    true, pred = _pair(y_true, y_pred, "log_cosh")
    error = pred - true
    return (torch.logaddexp(error, -error) - math.log(2.0)).mean(-1)


@family.entry()
def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """-sum(y_true y_pred) / (|y_true| |y_pred|) along `axis`: (B, ..., C) -> (B, ...), from -1, the same way, to 1.

    Norms are raised to at least epsilon: a vector of zeros gives 0. Shapes must be equal, or (B,) and (B, 1); else a
    ValueError. After Keras, whose gradient at a vector of zeros is NaN; here it is finite.

    >>> cosine_similarity([[0.0, 1.0]], [[0.0, 3.0]])
    tensor([-1.])
    """
    true, pred = _pair(y_true, y_pred, "cosine_similarity")
    return -F.cosine_similarity(true, pred, dim=axis, eps=config.epsilon())


@family.entry("bce", "BCE")
def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor:
    """Mean over `axis` of -(t log p + (1 - t) log(1 - p)), for targets t in [0, 1]: (B, ..., C) -> (B, ...).

    Args:
        y_true: targets in [0, 1]; ValueError unless of the shape of `y_pred` ((B,) and (B, 1) match).
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


@family.entry()
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


@family.entry()
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


@family.entry("kld", "KLD")
def kl_divergence(y_true: Any, y_pred: Any) -> Tensor:
    """sum(t log(t / p)) over the last axis, for distributions t and p: (B, ..., C) -> (B, ...).

    Both are cut to [epsilon, 1]. Shapes must be equal, or (B,) and (B, 1); else a ValueError. After Keras.

    >>> kl_divergence([[0.5, 0.5]], [[0.25, 0.75]])
    tensor([0.1438])
    """
    true, pred = _pair(y_true, y_pred, "kl_divergence")
    low = config.epsilon()
    return F.kl_div(pred.clamp(low, 1.0).log(), true.clamp(low, 1.0), reduction="none").sum(-1)


@family.entry()
def poisson(y_true: Any, y_pred: Any) -> Tensor:
    """mean(p - t log(p + epsilon)) over the last axis, for counts t and rates p: (B, ..., C) -> (B, ...).

    Shapes must be equal, or (B,) and (B, 1); else a ValueError. After Keras.

    >>> poisson([[2.0]], [[1.0]])
    tensor([1.0000])
    """
    true, pred = _pair(y_true, y_pred, "poisson")
    return F.poisson_nll_loss(pred, true, log_input=False, eps=config.epsilon(), reduction="none").mean(-1)


@family.entry()
def hinge(y_true: Any, y_pred: Any) -> Tensor:
    """mean(max(1 - t p, 0)) over the last axis, for targets t of -1 and 1: (B, ..., C) -> (B, ...).

    Where all targets are 0 or 1, a 0 means -1. Shapes must be equal, or (B,) and (B, 1); else a ValueError. After
    Keras.

    >>> hinge([[-1.0, 1.0]], [[0.5, 0.5]])
    tensor([1.])
    """
    return _margins(y_true, y_pred, "hinge").mean(-1)


@family.entry()
def squared_hinge(y_true: Any, y_pred: Any) -> Tensor:
    """mean(max(1 - t p, 0)^2) over the last axis, for targets t of -1 and 1: (B, ..., C) -> (B, ...).

    Where all targets are 0 or 1, a 0 means -1. Shapes must be equal, or (B,) and (B, 1); else a ValueError. After
    Keras.

    >>> squared_hinge([[-1.0, 1.0]], [[0.5, 0.5]])
    tensor([1.2500])
    """
    return _margins(y_true, y_pred, "squared_hinge").square().mean(-1)


@family.entry()
def categorical_hinge(y_true: Any, y_pred: Any) -> Tensor:
    """max(1 + max((1 - t) p) - sum(t p), 0) over the last axis, for one-hot targets t: (B, ..., C) -> (B, ...).

    Shapes must be equal, or (B,) and (B, 1); else a ValueError. After Keras.

    >>> categorical_hinge([[0.0, 1.0]], [[0.5, 0.75]])
    tensor([0.7500])
    """
    true, pred = _pair(y_true, y_pred, "categorical_hinge")
    right, wrong = (true * pred).sum(-1), ((1.0 - true) * pred).amax(-1)
    return F.relu(wrong - right + 1.0)


def _margins(y_true: Any, y_pred: Any, what: str) -> Tensor:
    """max(1 - t p, 0), each for itself, with targets of 0 and 1 turned into -1 and 1."""
    true, pred = _pair(y_true, y_pred, what)
    binary = ((true == 0) | (true == 1)).all()
    return F.relu(1.0 - torch.where(binary, 2.0 * true - 1.0, true) * pred)
