"""The crossentropies, as metrics: the losses' values, averaged over all rows."""

from __future__ import annotations

from typing import Any

from fanin.losses import crossentropy
from fanin.metrics.base import family
from fanin.metrics.mean import FixedMean


@family.entry("bce", "BCE")
class BinaryCrossentropy(FixedMean):
    """Mean of -(t log p + (1 - t) log(1 - p)).

    Args:
        name: "binary_crossentropy" by default.
        dtype: of the result; `floatx()` by default.
        from_logits: whether predictions are logits.
        label_smoothing: see `fanin.losses.BinaryCrossentropy`.

    After Keras.

    >>> BinaryCrossentropy()([[1.0], [0.0]], [[0.5], [0.5]])
    tensor(0.6931)
    """

    direction = "min"

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ):
        super().__init__(crossentropy.BinaryCrossentropy(from_logits, label_smoothing), name, dtype)
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        own = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **own}


@family.entry()
class CategoricalCrossentropy(FixedMean):
    """Mean of -sum(t log p) over C classes, for one-hot or soft targets.

    Args:
        name: "categorical_crossentropy" by default.
        dtype: of the result; `floatx()` by default.
        from_logits: whether predictions are logits.
        label_smoothing: see `fanin.losses.CategoricalCrossentropy`.
        axis: the axis of the classes, -1 by default.

    After Keras.

    >>> CategoricalCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])
    tensor(0.6931)
    """

    direction = "min"

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ):
        super().__init__(crossentropy.CategoricalCrossentropy(from_logits, label_smoothing, axis), name, dtype)
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        own = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing, "axis": self.axis}
        return {**super().get_config(), **own}


@family.entry()
class SparseCategoricalCrossentropy(FixedMean):
    """Mean of -log p[y_true], for class ids.

    Args:
        name: "sparse_categorical_crossentropy" by default.
        dtype: of the result; `floatx()` by default.
        from_logits: whether predictions are logits.
        ignore_class: rows with this id do not count; None (default) for none.
        axis: the axis of the classes, -1 by default.

    After Keras, which counts ignored rows as zeros unless there are weights; here they never count.

    >>> SparseCategoricalCrossentropy(ignore_class=-1)([1, -1], [[0.5, 0.5], [0.5, 0.5]])
    tensor(0.6931)
    """

    direction = "min"

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ):
        loss = crossentropy.SparseCategoricalCrossentropy(from_logits, ignore_class, axis=axis)
        super().__init__(loss, name, dtype)
        self.from_logits = from_logits
        self.ignore_class = ignore_class
        self.axis = axis

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        own = {"from_logits": self.from_logits, "ignore_class": self.ignore_class, "axis": self.axis}
        return {**super().get_config(), **own}
