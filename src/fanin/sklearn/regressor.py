"""The regressor."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils import check_array

from fanin.errors import MismatchError
from fanin.sklearn.columns import Array, checked_numbers, mean_and_scale
from fanin.sklearn.estimator import DenseEstimator


class DenseRegressor(RegressorMixin, DenseEstimator):  # type: ignore[misc]
    """A network of Dense layers that learns numbers: one, or several for each row.

    Shapes: X (B, I), y (B,) or (B, U). B batch, I columns, U targets. Tables are read, and rows weighted, as by
    `DenseClassifier`.

    Args:
        loss: a name such as "mse", "mae" or "huber", or a fanin loss; of the standardized targets.
        standardize_target: whether the network learns targets of mean 0 and variance 1. Predictions are in the units of
            y in either case; the numbers of `history_` are not.
        hidden_layer_sizes, activation, dropout, l2, optimizer, learning_rate, batch_size, epochs, early_stopping,
            validation_fraction, patience, standardize, categorical_features, max_categories, dtype, warm_start,
            random_state, verbose: see `DenseClassifier`.

    Attributes:
        target_mean_, target_scale_: (prediction - mean) / scale is what the network says, (U,); 0 and 1 without
            standardize_target.
        model_, columns_, history_, n_iter_, loss_curve_, n_features_in_, feature_names_in_: see `DenseClassifier`.

    Raises ValueError, or a TypeError, for arguments (at `fit`, as scikit-learn does) and data that do not fit. After
    scikit-learn's `MLPRegressor`.

    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> DenseRegressor((16,), random_state=0).fit(X, y).score(X, y) > 0.4
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (128, 64),
        activation: Any = "relu",
        *,
        loss: Any = "mse",
        dropout: float = 0.0,
        l2: float = 0.001,
        optimizer: Any = "adam",
        learning_rate: float = 0.001,
        batch_size: int = 32,
        epochs: int = 50,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        standardize: bool = True,
        standardize_target: bool = True,
        categorical_features: Any = None,
        max_categories: int | None = 100,
        dtype: str | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.loss = loss
        self.dropout = dropout
        self.l2 = l2
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.standardize_target = standardize_target
        self.categorical_features = categorical_features
        self.max_categories = max_categories
        self.dtype = dtype
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch more, or for the first one.

        Args:
            X: rows, (B, I). Those of the first call settle what is known about columns and targets.
            y: their targets, (B,) or (B, U).
            sample_weight: one weight for each row, (B,).
        """
        self._train(X, y, sample_weight, epochs=1, fresh=not hasattr(self, "model_"))
        return self

    def predict(self, X: Any) -> Array:
        """(B, I) -> (B,), or (B, U) if `fit` was given several targets."""
        found: Array = self._outputs(X) * self.target_scale_ + self.target_mean_
        return found.reshape(len(found), *self._target_shape)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    # --- targets -----------------------------------------------------------------------------------------------

    def _checked_target(self, y: Any) -> Array:
        target: Array = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        return target

    def _learn_target(self, y: Array, weight: Array | None, classes: Any) -> None:
        self._target_shape = y.shape[1:]
        mean, scale = mean_and_scale(y.reshape(len(y), -1), weight)
        self.target_mean_ = mean if self.standardize_target else np.zeros_like(mean)
        self.target_scale_ = scale if self.standardize_target else np.ones_like(scale)

    def _encoded_target(self, y: Array) -> Array:
        if y.shape[1:] != self._target_shape:
            raise ValueError(f"y: expected shape {('B', *self._target_shape)}, found {y.shape}.")
        found: Array = (y.reshape(len(y), -1) - self.target_mean_) / self.target_scale_
        return found

    def _units(self) -> int:
        return len(self.target_mean_)

    def _loss(self) -> Any:
        return self.loss

    def _target_config(self) -> dict[str, Any]:
        one = self._target_shape == ()
        return {"one": one, "mean": self.target_mean_.tolist(), "scale": self.target_scale_.tolist()}

    def _target_from_config(self, config: Any, outputs: int) -> None:
        self.target_mean_ = checked_numbers(config["mean"], "target: mean", outputs)
        self.target_scale_ = checked_numbers(config["scale"], "target: scale", outputs)
        if type(config["one"]) is not bool or (config["one"] and outputs != 1) or not (self.target_scale_ > 0).all():
            raise MismatchError(f"target: expected {outputs} positive scales, and whether y is one column.")
        self._target_shape = () if config["one"] else (outputs,)
