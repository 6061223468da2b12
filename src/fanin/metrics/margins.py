"""The hinge losses, as metrics: their values, averaged over all rows."""

from __future__ import annotations

from typing import Any

from fanin.losses import margins
from fanin.metrics.base import family
from fanin.metrics.mean import FixedMean


@family.entry()
class Hinge(FixedMean):
    """Mean of max(1 - t p, 0), for targets t of -1 and 1. Shapes equal, or (B,) against (B, 1).

    Args:
        name: "hinge" by default.
        dtype: of the result; `floatx()` by default.

    Where all targets of a batch are 0 or 1, a 0 means -1. After Keras.

    >>> Hinge()([[-1.0], [1.0]], [[0.5], [0.5]])
    tensor(1.)
    """

    direction = "min"

    def __init__(self, name: str | None = "hinge", dtype: Any = None):
        super().__init__(margins.Hinge(), name, dtype)


@family.entry()
class SquaredHinge(FixedMean):
    """Mean of max(1 - t p, 0)^2, for targets t of -1 and 1. Shapes equal, or (B,) against (B, 1).

    Args:
        name: "squared_hinge" by default.
        dtype: of the result; `floatx()` by default.

    Where all targets of a batch are 0 or 1, a 0 means -1. After Keras.

    >>> SquaredHinge()([[-1.0], [1.0]], [[0.5], [0.5]])
    tensor(1.2500)
    """

    direction = "min"

    def __init__(self, name: str | None = "squared_hinge", dtype: Any = None):
        super().__init__(margins.SquaredHinge(), name, dtype)


@family.entry()
class CategoricalHinge(FixedMean):
    """Mean of max(1 + max((1 - t) p) - sum(t p), 0) over C classes, for one-hot targets t.

    Args:
        name: "categorical_hinge" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> CategoricalHinge()([[0.0, 1.0]], [[0.5, 0.75]])
    tensor(0.7500)
    """

    direction = "min"

    def __init__(self, name: str | None = "categorical_hinge", dtype: Any = None):
        super().__init__(margins.CategoricalHinge(), name, dtype)
