"""The classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from fanin import losses
from fanin.sklearn.columns import Array
from fanin.sklearn.estimator import DenseEstimator
from fanin.sklearn.file import labels_config, read_labels


class DenseClassifier(ClassifierMixin, DenseEstimator):  # type: ignore[misc]
    """A network of Dense layers that learns classes: two, many, or several labels for each row.

    Shapes: X (B, I), y (B,), or (B, C) of 0 and 1 for C labels. B batch, I columns, C classes. The network ends in
    logits: one for two classes, else C; the loss is the crossentropy.

    Args:
        hidden_layer_sizes: the units of each hidden layer; () for a linear model.
        activation: of the hidden layers, as Dense takes it.
        dropout: the fraction of each hidden layer's outputs that a step leaves out.
        l2: factor of the penalty on all kernels, as in `regularizers.L2`.
        optimizer: a name, a config, or a fanin optimizer, of which a copy trains.
        learning_rate: of an optimizer given by name.
        batch_size: rows in one step.
        epochs: how often training goes through the rows; with early stopping, at most.
        early_stopping: whether to stop once the loss of held-out rows has not become smaller for `patience` epochs, and
            to go back to the best one. Held out are those of `fit(validation_data=...)`, or else a random part.
        validation_fraction: how large that part is.
        patience: see early_stopping.
        class_weight: class -> weight; "balanced": inverse to the weight of all rows of the class; None.
        standardize: whether each column of numbers gets mean 0 and variance 1.
        categorical_features: names or places of columns of numbers that are categories.
        max_categories: how many values of one category are told apart; None for all.
        dtype: "float32" or "float64"; None: that of X.
        warm_start: whether `fit` trains the network further that there is.
        random_state: an int for the same result each time, a RandomState, or None. torch's own random state stays.
        verbose: 0 silent, 1 a bar, 2 one line for each epoch.

    X is an array or a pandas DataFrame. Missing values (NaN, None, NA) are welcome: a number becomes the mean of its
    column, and a column of 0 and 1 says where. Strings, objects and categories become one column of 0 and 1 for each
    value; values that are rare or were not there in `fit` are all zeros.

    Sample weights count by their ratio to each other. A row of weight 2 is as good as two rows as long as one batch
    holds all rows; in smaller batches only on average.

    Attributes:
        classes_: the classes, sorted; with several labels, 0 to C - 1.
        model_: the network, a `fanin.Sequential`, which gets the result of `columns_.transform(X)`.
        columns_: what was learned about the columns.
        history_: name -> one number for each epoch, "loss" and, if rows were held out, "val_loss"; penalties included.
        n_iter_, loss_curve_: the number of epochs, and `history_["loss"]`.
        n_features_in_, feature_names_in_: the columns of X.

    Raises ValueError, or a TypeError, for arguments (at `fit`, as scikit-learn does) and data that do not fit. After
    scikit-learn's `MLPClassifier`; what Keras has, such as `epochs` and `learning_rate`, has Keras's name and meaning.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> DenseClassifier(random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (128, 64),
        activation: Any = "relu",
        *,
        dropout: float = 0.0,
        l2: float = 0.001,
        optimizer: Any = "adam",
        learning_rate: float = 0.001,
        batch_size: int = 32,
        epochs: int = 50,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        class_weight: Any = None,
        standardize: bool = True,
        categorical_features: Any = None,
        max_categories: int | None = 100,
        dtype: str | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.l2 = l2
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.epochs = epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.class_weight = class_weight
        self.standardize = standardize
        self.categorical_features = categorical_features
        self.max_categories = max_categories
        self.dtype = dtype
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch more, or for the first one.

        Args:
            X: rows, (B, I). Those of the first call settle what is known about the columns.
            y: their classes, or labels.
            classes: all classes there will ever be; needed at the first call, unless y has several labels.
            sample_weight: one weight for each row, (B,).
        """
        if isinstance(self.class_weight, str):
            raise ValueError("partial_fit sees only some of the rows, which class_weight='balanced' would count.")
        fresh = not hasattr(self, "model_")
        if classes is not None and not fresh and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"partial_fit: the classes are {self.classes_} since the first call, found {classes!r}.")
        self._train(X, y, sample_weight, epochs=1, fresh=fresh, classes=() if fresh and classes is None else classes)
        return self

    def decision_function(self, X: Any) -> Array:
        """The logits: (B, I) -> (B, C), or (B,) for two classes, where positive means the second."""
        outputs = self._outputs(X)
        return outputs if self._multilabel or outputs.shape[1] > 1 else outputs[:, 0]

    def predict(self, X: Any) -> Array:
        """The most probable class of each row, (B, I) -> (B,); with several labels 0 or 1 for each, (B, C)."""
        decision = self.decision_function(X)
        if self._multilabel:
            return (decision > 0).astype(int)
        found: Array = self.classes_[decision.argmax(axis=1) if decision.ndim == 2 else (decision > 0).astype(int)]
        return found

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (B, I) -> (B, C), rows summing to 1; with several labels that of each."""
        logits = torch.from_numpy(self._outputs(X))
        if self._multilabel:
            return logits.sigmoid().numpy()
        if logits.shape[1] == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits.softmax(dim=1).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    # --- targets -----------------------------------------------------------------------------------------------

    @property
    def _multilabel(self) -> bool:
        return len(self._target_shape) > 0

    def _checked_target(self, y: Any) -> Array:
        labels: Array = check_array(y, ensure_2d=False, dtype=None, input_name="y")
        check_classification_targets(labels)
        return labels if type_of_target(labels) == "multilabel-indicator" else column_or_1d(labels, warn=True)

    def _learn_target(self, y: Array, weight: Array | None, classes: Any) -> None:
        if y.ndim == 1 and classes is not None and not len(classes):
            raise ValueError("partial_fit: the first call needs classes, all that will ever be.")
        self._target_shape = y.shape[1:]
        self.classes_ = np.arange(y.shape[1]) if y.ndim == 2 else np.unique(y if classes is None else classes)
        if len(self.classes_) < 2 and not self._multilabel:
            raise ValueError(f"{type(self).__name__} needs 2 classes or more, found one class: {self.classes_[0]!r}.")

    def _encoded_target(self, y: Array) -> Array:
        if y.shape[1:] != self._target_shape:
            raise ValueError(f"y: expected shape {('B', *self._target_shape)}, found {y.shape}.")
        if self._multilabel:
            return y
        encoder = LabelEncoder()
        encoder.classes_ = self.classes_
        ids: Array = encoder.transform(y)
        return ids

    def _class_weights(self, y: Array, weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return None
        if self._multilabel:
            raise ValueError("class_weight: not with several labels for each row; only sample_weight.")
        found: Array = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=weight)
        return found

    def _units(self) -> int:
        return 1 if len(self.classes_) == 2 and not self._multilabel else len(self.classes_)

    def _loss(self) -> losses.Loss:
        if self._multilabel or self._units() == 1:
            return losses.BinaryCrossentropy(from_logits=True)
        return losses.SparseCategoricalCrossentropy(from_logits=True)

    def _target_config(self) -> dict[str, Any]:
        return {"classes": None if self._multilabel else labels_config(self.classes_)}

    def _target_from_config(self, config: Any, outputs: int) -> None:
        labels = config["classes"]
        self._target_shape = (outputs,) if labels is None else ()
        self.classes_ = np.arange(outputs) if labels is None else read_labels(labels)
