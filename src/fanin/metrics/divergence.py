"""Kullback-Leibler and Poisson, as metrics: the losses' values, averaged over all rows."""

from __future__ import annotations

from typing import Any

from fanin.losses import divergence
from fanin.metrics.base import family
from fanin.metrics.mean import FixedMean


@family.entry()
class KLDivergence(FixedMean):
    """Mean of sum(t log(t / p)) over C classes, for distributions t and p, both cut to [epsilon, 1].

    Args:
        name: "kl_divergence" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> KLDivergence()([[0.5, 0.5]], [[0.25, 0.75]])
    tensor(0.1438)
    """

    direction = "min"

    def __init__(self, name: str | None = "kl_divergence", dtype: Any = None):
        super().__init__(divergence.KLDivergence(), name, dtype)


@family.entry()
class Poisson(FixedMean):
    """Mean of p - t log(p + epsilon), for counts t and rates p. Shapes equal, or (B,) against (B, 1).

    Args:
        name: "poisson" by default.
        dtype: of the result; `floatx()` by default.

    After Keras.

    >>> Poisson()([[2.0]], [[1.0]])
    tensor(1.0000)
    """

    direction = "min"

    def __init__(self, name: str | None = "poisson", dtype: Any = None):
        super().__init__(divergence.Poisson(), name, dtype)
