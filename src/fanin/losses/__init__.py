"""Losses: what training makes small. Keras's names, numbers and reductions, in pure torch.

`get` finds one as Keras does: a name, class, instance, config or callable(y_true, y_pred); also a loss of `torch.nn`.
`resolve` always gives a `Loss`, which is what a training step needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fanin.losses.base import REDUCTIONS, Loss, LossFunction, classes, family, kind_by_shapes
from fanin.losses.crossentropy import BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy
from fanin.losses.divergence import KLDivergence, Poisson
from fanin.losses.functions import (
    binary_crossentropy,
    categorical_crossentropy,
    categorical_hinge,
    cosine_similarity,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from fanin.losses.margins import CategoricalHinge, Hinge, SquaredHinge
from fanin.losses.regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
)
from fanin.losses.wrappers import LossFunctionWrapper, TorchLoss, is_torch_loss
from fanin.missing_names import explain

__all__ = [
    "REDUCTIONS",
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "LossFunctionWrapper",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "TorchLoss",
    "binary_crossentropy",
    "categorical_crossentropy",
    "categorical_hinge",
    "cosine_similarity",
    "deserialize",
    "family",
    "get",
    "hinge",
    "huber",
    "is_torch_loss",
    "kind_by_shapes",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "resolve",
    "serialize",
    "sparse_categorical_crossentropy",
    "squared_hinge",
]

if not TYPE_CHECKING:  # which would then take every name for known
    __getattr__ = explain(__name__)


def get(identifier: Any) -> LossFunction | None:
    """The loss that `identifier` means, as Keras has it: the name of a function gives the function.

    Args:
        identifier: None; a name ("mse", "mean_squared_error", "MeanSquaredError"); a `Loss` class or instance; a
            config; any callable(y_true, y_pred); a loss of `torch.nn`, which becomes a `TorchLoss`.

    Raises ValueError for an unknown name, TypeError for what cannot be a loss.

    >>> get("mse").__name__, get("Huber")
    ('mean_squared_error', <Huber name='huber_loss' reduction='sum_over_batch_size'>)
    """
    if is_torch_loss(identifier):
        loss: Any = identifier() if inspect.isclass(identifier) else identifier
        return TorchLoss(loss)
    return family.get(identifier)


def resolve(
    identifier: Any, output_shape: Sequence[int | None] | None = None, y_shape: Sequence[int | None] | None = None
) -> Loss:
    """The `Loss` for a model, from anything that `get` takes, and from "crossentropy" or "ce".

    Args:
        identifier: see `get`. "crossentropy" and "ce", in any case, mean the binary, sparse or categorical one,
            by the shapes (`kind_by_shapes`).
        output_shape: the model's, (None, ..., C).
        y_shape: the targets', (N, ...).

    A function becomes a `Loss` under its own name, with `sum_over_batch_size`. Raises ValueError for "crossentropy"
    without shapes, and what `get` raises; TypeError for None.

    >>> resolve("ce", (None, 10), (60000,))
    <SparseCategoricalCrossentropy name='sparse_categorical_crossentropy' reduction='sum_over_batch_size'>
    """
    if isinstance(identifier, str) and identifier.lower() in ("crossentropy", "ce"):
        if output_shape is None or y_shape is None:
            raise ValueError(f"The loss {identifier!r} is chosen by shapes, and these are not known here.")
        kind = kind_by_shapes(output_shape, y_shape)
        by_kind = {"binary": binary_crossentropy, "sparse": sparse_categorical_crossentropy}
        identifier = by_kind.get(kind, categorical_crossentropy)
    found = get(identifier)
    if found is None:
        raise TypeError("resolve: identifier must be a loss, found None.")
    if isinstance(found, Loss):
        return found
    own = classes.get(found) if inspect.isfunction(found) else None
    return LossFunctionWrapper(found) if own is None else own(name=found.__name__)


def serialize(loss: Any) -> Any:
    """Plain JSON data for a loss: a name for a function of this package, else Keras's object form.

    Raises ValueError for what files cannot hold: torch's losses, lambdas, functions with the name of one of fanin's.
    """
    if isinstance(loss, TorchLoss):
        loss.get_config()
    return family.serialize(loss)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> LossFunction | None:
    """The loss that `serialize`, here or in Keras, described. Unknown classes are a `MismatchError`."""
    return family.deserialize(config, custom_objects)
