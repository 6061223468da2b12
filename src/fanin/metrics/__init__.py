"""Metrics: what is counted over an epoch. Keras's names and numbers, with a pure core for compiled steps.

`get` finds one as Keras does, also a torchmetrics metric; `resolve` also knows "accuracy" and "crossentropy", which
are chosen by the shapes of a model.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fanin import losses
from fanin.losses.functions import (
    binary_crossentropy,
    categorical_crossentropy,
    categorical_hinge,
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
from fanin.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from fanin.metrics.adapter import TorchMetric, is_foreign
from fanin.metrics.auc import AUC
from fanin.metrics.base import Metric, family
from fanin.metrics.confusion import (
    FalseNegatives,
    FalsePositives,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)
from fanin.metrics.crossentropy import BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy
from fanin.metrics.divergence import KLDivergence, Poisson
from fanin.metrics.margins import CategoricalHinge, Hinge, SquaredHinge
from fanin.metrics.mean import Mean, MeanMetricWrapper
from fanin.metrics.r2 import R2Score
from fanin.metrics.regression import (
    CosineSimilarity,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    RootMeanSquaredError,
)
from fanin.missing_names import explain
from fanin.registry import Family, get_registered_object, snake_case

__all__ = [
    "AUC",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "FalseNegatives",
    "FalsePositives",
    "Hinge",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Poisson",
    "Precision",
    "R2Score",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SquaredHinge",
    "TopKCategoricalAccuracy",
    "TorchMetric",
    "TrueNegatives",
    "TruePositives",
    "accuracy",
    "binary_accuracy",
    "binary_crossentropy",
    "categorical_accuracy",
    "categorical_crossentropy",
    "categorical_hinge",
    "deserialize",
    "direction",
    "family",
    "get",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "resolve",
    "resolve_accuracy",
    "serialize",
    "sparse_categorical_accuracy",
    "sparse_categorical_crossentropy",
    "sparse_top_k_categorical_accuracy",
    "squared_hinge",
    "top_k_categorical_accuracy",
]

if not TYPE_CHECKING:  # which would then take every name for known
    __getattr__ = explain(__name__)


def get(identifier: Any) -> Metric | None:
    """The metric that `identifier` means.

    Args:
        identifier: None; a name ("auc", "AUC", "mse", or the name of a loss, which is then averaged); a `Metric`
            class or instance; a config; a `Loss` or a callable(y_true, y_pred), whose values are averaged under its
            own name; a torchmetrics metric.

    "accuracy" here is `Accuracy`, exact equality, as in Keras; `resolve` chooses by shapes. Raises ValueError for an
    unknown name, TypeError for what cannot be a metric.

    >>> get("mse"), get("huber")
    (<MeanSquaredError name='mean_squared_error'>, <MeanMetricWrapper name='huber'>)
    """
    if identifier is None:
        return None
    found: Any = identifier
    if isinstance(identifier, str):
        known = identifier in family.names() or get_registered_object(identifier) is not None
        source: Family[Any] = losses.family if not known and identifier in losses.family.names() else family
        found = source.lookup(identifier)
    elif isinstance(identifier, Mapping):
        found = deserialize(identifier)
    if is_foreign(found):
        return TorchMetric(found() if inspect.isclass(found) else found)
    if inspect.isclass(found) or losses.is_torch_loss(found):
        found = losses.get(found) if losses.is_torch_loss(found) else found()
    if isinstance(found, Metric):
        return found
    if not callable(found):
        raise TypeError(
            f"Could not interpret metric identifier {identifier!r}: expected a name, class, config or callable."
        )
    name = found.name if isinstance(found, losses.Loss) else getattr(found, "__name__", None)
    metric = MeanMetricWrapper(found, (name or snake_case(type(found).__name__)).strip("<>"))  # "lambda", as in Keras
    if metric.direction is None:
        # The loss function has the opposite sign of the metric of its name.
        metric.direction = "min" if found is losses.cosine_similarity else direction(metric.name)
    return metric


def resolve_accuracy(output_shape: Sequence[int | None], y_shape: Sequence[int | None]) -> type[Metric]:
    """The accuracy that fits a model of that output (None, ..., C) and targets (N, ...), by Keras's rule.

    >>> resolve_accuracy((None, 10), (60000,)).__name__
    'SparseCategoricalAccuracy'
    """
    kinds = {"binary": BinaryAccuracy, "sparse": SparseCategoricalAccuracy, "categorical": CategoricalAccuracy}
    return kinds[losses.kind_by_shapes(output_shape, y_shape)]


def resolve(
    identifier: Any,
    output_shape: Sequence[int | None] | None = None,
    y_shape: Sequence[int | None] | None = None,
    from_logits: bool = False,
) -> Metric:
    """The `Metric` for a model, from anything that `get` takes, and from "accuracy", "acc", "crossentropy" or "ce".

    Args:
        identifier: see `get`. Those four, in any case, are chosen by the shapes. A string becomes the metric's name
            as it was written, so that histories have the user's key.
        output_shape: the model's, (None, ..., C).
        y_shape: the targets', (N, ...).
        from_logits: whether the model's outputs are logits, for "crossentropy".

    Raises ValueError for those four without shapes, and what `get` raises; TypeError for None.

    >>> resolve("acc", (None, 1), (100,))
    <BinaryAccuracy name='acc'>
    """
    if not isinstance(identifier, str):
        metric = get(identifier)
        if metric is None:
            raise TypeError("resolve: identifier must be a metric, found None.")
        return metric
    lowered = identifier.lower()
    if lowered in ("accuracy", "acc", "crossentropy", "ce"):
        if output_shape is None or y_shape is None:
            raise ValueError(f"The metric {identifier!r} is chosen by shapes, and these are not known here.")
        if lowered in ("accuracy", "acc"):
            return resolve_accuracy(output_shape, y_shape)(name=identifier)
        by_kind: dict[str, Callable[..., Metric]] = {
            "binary": BinaryCrossentropy,
            "sparse": SparseCategoricalCrossentropy,
            "categorical": CategoricalCrossentropy,
        }
        return by_kind[losses.kind_by_shapes(output_shape, y_shape)](name=identifier, from_logits=from_logits)
    metric = get(identifier)
    assert metric is not None
    metric.name = identifier
    return metric


_MAX = (
    "accuracy acc auc precision recall f1 f1_score fbeta_score iou r2_score r2 cosine_similarity true_positives "
    "true_negatives"
)
_MIN = (
    "loss error crossentropy ce bce mse mae rmse mape msle huber perplexity logcosh log_cosh kl_divergence kld "
    "poisson hinge false_positives false_negatives"
)


def direction(metric: str | Metric) -> str | None:
    """Whether larger ("max") or smaller ("min") is better, from a metric or a key of a history; None if unknown.

    A key may have a prefix ("val_", an output's name) and a number behind ("auc_1").

    >>> direction("val_auc_1"), direction("out_mse"), direction("steps")
    ('max', 'min', None)
    """
    if isinstance(metric, Metric):
        return metric.direction or direction(metric.name)
    name = re.sub(r"_\d+$", "", snake_case(metric))
    for words, found in ((_MAX, "max"), (_MIN, "min")):
        if any(name == word or name.endswith("_" + word) for word in words.split()):
            return found
    return None


def serialize(metric: Any) -> Any:
    """Plain JSON data for a metric, in Keras's object form.

    Raises ValueError for what files cannot hold: torchmetrics, lambdas, functions with the name of one of fanin's.
    """
    if isinstance(metric, TorchMetric):
        metric.get_config()
    return family.serialize(metric)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The metric, or the function, that `serialize`, here or in Keras, described. Else a `MismatchError`."""
    return family.deserialize(config, custom_objects)
