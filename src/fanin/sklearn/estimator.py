"""What the two estimators share: from a table to a trained network, and from rows to its outputs."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from fanin import optimizers, regularizers
from fanin.callbacks import EarlyStopping
from fanin.graph.tree import as_list
from fanin.layers import Dense, Dropout, Input
from fanin.models import Sequential
from fanin.sklearn import file
from fanin.sklearn.columns import FLOATS, Array, is_frame, learn

ROWS_AT_ONCE = 8192  # in predictions


class Rows(NamedTuple):
    """Rows of a table (B, I), their targets (B, ...) and, if they are weighted, weights (B,)."""

    table: Any
    y: Array
    weight: Array | None

    def take(self, index: Array) -> Rows:
        """Some of the rows."""
        table = self.table.iloc[index] if is_frame(self.table) else self.table[index]
        return Rows(table, self.y[index], None if self.weight is None else self.weight[index])


class DenseEstimator(BaseEstimator):  # type: ignore[misc]
    """The base of `DenseClassifier` and `DenseRegressor`, which say what the targets are.

    ::

        X (B, I) --columns_--> (B, width) --model_--> outputs (B, U) --> what `predict` returns
    """

    # --- what a subclass says ----------------------------------------------------------------------------------

    def _checked_target(self, y: Any) -> Array:
        """Targets as an array, or a ValueError; nothing is learned."""
        raise NotImplementedError

    def _learn_target(self, y: Array, weight: Array | None, classes: Any) -> None:
        """Note the classes (those given, or else those of y), or mean and scale."""
        raise NotImplementedError

    def _encoded_target(self, y: Array) -> Array:
        """Targets as the loss wants them."""
        raise NotImplementedError

    def _class_weights(self, y: Array, weight: Array | None) -> Array | None:
        """The weight of each class, if there are such."""
        return None

    def _units(self) -> int:
        """The number of the network's outputs."""
        raise NotImplementedError

    def _loss(self) -> Any:
        """The loss, for `compile`."""
        raise NotImplementedError

    def _target_config(self) -> dict[str, Any]:
        """What was learned about the targets, as JSON data."""
        raise NotImplementedError

    def _target_from_config(self, config: Any, outputs: int) -> None:
        """Take that over, for a network with so many outputs. Any error where it does not fit."""
        raise NotImplementedError

    # --- training ----------------------------------------------------------------------------------------------

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, validation_data: Any = None, callbacks: Any = None
    ) -> Self:
        """Train, and return the estimator. After an error it is as before.

        Args:
            X: the rows, (B, I).
            y: the targets.
            sample_weight: one weight for each row, (B,).
            validation_data: (X, y) or (X, y, sample_weight) that is not trained on: its loss goes to
                `history_["val_loss"]`, and decides about early stopping.
            callbacks: fanin callbacks.
        """
        self._train(
            X, y, sample_weight, self.epochs, fresh=not (self.warm_start and hasattr(self, "model_")),
            early_stopping=self.early_stopping, validation_data=validation_data, callbacks=callbacks,
        )  # fmt: skip
        return self

    def _train(self, *args: Any, **kwargs: Any) -> None:
        before = dict(self.__dict__)
        try:
            self._try_to_train(*args, **kwargs)
        except Exception:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _try_to_train(
        self, X: Any, y: Any, sample_weight: Any, epochs: int, fresh: bool, *,
        early_stopping: bool = False, validation_data: Any = None, callbacks: Any = None, classes: Any = None,
    ) -> None:  # fmt: skip
        """Train a new network (`fresh`), or the one there is further."""
        chance = check_random_state(self.random_state)
        rows = self._rows(X, y, sample_weight, fresh)
        if rows.weight is not None and not rows.weight.all():  # a row that weighs nothing is not there at all
            rows = rows.take(np.flatnonzero(rows.weight))
        if fresh:
            self._learn_target(rows.y, rows.weight, classes)
        factors = self._class_weights(rows.y, rows.weight)
        held: Rows | None = None
        if validation_data is not None:
            held = self._rows(*_checked_validation(validation_data), reset=False)
        elif early_stopping:
            rows, held = self._split(rows, chance)
        rows = self._encoded(rows, factors)
        if fresh:
            self.columns_ = learn(
                rows.table, rows.weight, self.standardize, self.categorical_features, self.max_categories, self.dtype
            )
            self.history_: dict[str, list[float]] = {}
            self._generator_state: torch.Tensor | None = None
        state = getattr(self, "_generator_state", None)  # a file has none
        with drawing(chance.randint(2**31) if state is None else state):
            if fresh:
                self.model_ = self._new_model()
            self._run(rows, None if held is None else self._encoded(held, factors), epochs, early_stopping, callbacks)
            self._generator_state = torch.get_rng_state()

    def _run(self, rows: Rows, held: Rows | None, epochs: int, early_stopping: bool, callbacks: Any) -> None:
        """`Model.fit`."""
        hooks = as_list(callbacks)
        if early_stopping:
            hooks = [*hooks, EarlyStopping("val_loss", patience=self.patience, restore_best_weights=True)]
        given = None if held is None else (self.columns_.transform(held.table), held.y, held.weight)
        found = self.model_.fit(
            self.columns_.transform(rows.table), rows.y, self.batch_size, epochs, self.verbose, hooks,
            validation_data=given, sample_weight=rows.weight,
        ).history  # fmt: skip
        self.history_ = self.history_ | {name: self.history_.get(name, []) + line for name, line in found.items()}
        if not np.isfinite(found["loss"]).all():
            raise ValueError(
                f"{type(self).__name__}: training diverged, the losses are {found['loss'][-3:]}. Try a smaller "
                "learning_rate, or standardize=True."
            )

    def _rows(self, X: Any, y: Any, sample_weight: Any, reset: bool) -> Rows:
        """What the user gave, checked."""
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        table, target = self._table(X, reset), self._checked_target(y)
        weight = None if sample_weight is None else _checked_weight(sample_weight)
        check_consistent_length(table, target, weight)
        return Rows(table, target, weight)

    def _split(self, rows: Rows, chance: np.random.RandomState) -> tuple[Rows, Rows]:
        """The rows to train on, and a random part to hold out, with every class in the same share."""
        classes = rows.y if is_classifier(self) and rows.y.ndim == 1 else None
        kept, apart = train_test_split(
            np.arange(len(rows.y)), test_size=self.validation_fraction, random_state=chance, stratify=classes
        )
        return rows.take(kept), rows.take(apart)

    def _encoded(self, rows: Rows, factors: Array | None) -> Rows:
        """Targets as the loss wants them, and weights, those of the classes included, with mean 1."""
        y, weight = self._encoded_target(rows.y), rows.weight
        if factors is not None:
            weight = factors[y] if weight is None else weight * factors[y]
            if not weight.any():
                raise ValueError("class_weight and sample_weight together give every row the weight zero.")
        return Rows(rows.table, y, None if weight is None else weight / weight.mean())

    def _new_model(self) -> Sequential:
        """The network, compiled."""
        dtype, sizes = self.columns_.dtype, self.hidden_layer_sizes
        penalty = regularizers.L2(self.l2) if self.l2 else None
        start = Input((self.columns_.width,), dtype=dtype, name="columns")
        model = Sequential([start], name=type(self).__name__, dtype=dtype)
        for number, units in enumerate(sizes if np.iterable(sizes) else [sizes]):
            name = f"hidden_{number}"
            model.add(Dense(units, self.activation, kernel_regularizer=penalty, name=name, dtype=dtype))
            if self.dropout:
                model.add(Dropout(self.dropout, name=f"dropout_{number}", dtype=dtype))
        model.add(Dense(self._units(), kernel_regularizer=penalty, name="output", dtype=dtype))
        model.compile(self._new_optimizer(), self._loss())
        return model

    def _new_optimizer(self) -> optimizers.Optimizer:
        """The optimizer that was asked for: a copy, so that no state gets into the argument."""
        found = copy.deepcopy(optimizers.get(self.optimizer))
        if not isinstance(found, optimizers.Optimizer):
            raise TypeError(f"optimizer: expected a name, a config or a fanin optimizer, found {self.optimizer!r}.")
        if isinstance(self.optimizer, str):
            found.learning_rate, found.name = self.learning_rate, self.optimizer.lower()
        return found

    # --- files -------------------------------------------------------------------------------------------------

    def save(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write a fitted estimator to one file that ends in ".keras", without pickle.

        The file is the archive of the network, which fanin and Keras open as a model, with the rest as JSON in it:
        arguments, columns, targets and history. It is replaced only once the new one is complete. Raises ValueError for
        what a file cannot hold: a lambda, a RandomState, classes that are neither strings nor numbers.
        """
        file.save(self, filepath, overwrite)

    @classmethod
    def load(cls, filepath: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """The estimator of this class that `save` wrote: it predicts the same, and its optimizer goes on where it was.

        `custom_objects` are name -> class or function, for what is not registered. Raises OSError for a path that
        cannot be read, else a `FormatError` that names file and member. No code from the file runs.
        """
        return file.load(cls, filepath, custom_objects)

    # --- tables and outputs ------------------------------------------------------------------------------------

    def _table(self, X: Any, reset: bool) -> Any:
        """X as a DataFrame or an array of floats, its number and names of columns noted (`reset`) or compared."""
        if not is_frame(X):
            return validate_data(self, X, reset=reset, dtype=FLOATS, ensure_all_finite="allow-nan")
        if not len(X):
            raise ValueError(f"{type(self).__name__}: X has no rows.")
        return validate_data(self, X, reset=reset, skip_check_array=True).infer_objects()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _outputs(self, X: Any) -> Array:
        """What the network says, (B, U), as float64."""
        check_is_fitted(self, "model_")
        x = self.columns_.transform(self._table(X, reset=False))
        found: Array = self.model_.predict(x, batch_size=ROWS_AT_ONCE, verbose=0)
        return found.astype(np.float64)

    @property
    def n_iter_(self) -> int:
        """The number of epochs that the network was trained."""
        return len(self.history_["loss"])

    @property
    def loss_curve_(self) -> list[float]:
        """The loss of each epoch: `history_["loss"]`."""
        return self.history_["loss"]


@contextmanager
def drawing(start: int | torch.Tensor) -> Iterator[None]:
    """Inside the block, torch draws from this seed or state on; outside, as if nothing had happened."""
    with torch.random.fork_rng(devices=[]):
        if isinstance(start, torch.Tensor):
            torch.set_rng_state(start)
        else:
            torch.default_generator.manual_seed(start)
        yield


def _checked_weight(sample_weight: Any) -> Array:
    """Sample weights (B,) as an array. ValueError unless they are numbers of 0 or more, and not all 0."""
    weight: Array = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weight.ndim != 1:
        raise ValueError(f"sample_weight: expected one weight for each row, found an array of shape {weight.shape}.")
    if weight.min() < 0 or not weight.any():
        raise ValueError("sample_weight: weights must not be negative, nor all of them zero.")
    return weight


def _checked_validation(data: Any) -> tuple[Any, Any, Any]:
    """validation_data as (X, y, sample_weight or None)."""
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise ValueError(f"validation_data: expected (X, y) or (X, y, sample_weight), found {type(data).__name__}.")
    return data[0], data[1], data[2] if len(data) == 3 else None
