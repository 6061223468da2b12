"""An adapter: what a low-rank scheme knows of A and B beside their tensors."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from fanin import arguments

_NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Adapter:
    """One adapter's numbers, without its tensors.

    Attributes:
        name: letters, digits and underscores. "ann" gives the weights `ann_kernel_a` and `ann_kernel_b`.
        rank: R, a positive integer.
        alpha: a positive number, the numerator of the scale; default the rank.
        dropout: the fraction of the inputs of A that is set to 0 in training, from 0 to below 1.
        rslora: whether the scale is alpha / sqrt(rank) instead of alpha / rank.
        factor: what the scale is multiplied by.
        a_initializer: fills A, he_uniform in Keras.
        b_initializer: fills B, zeros in Keras: a new adapter changes nothing.

    Raises ValueError, naming adapter and attribute, for anything else.

    >>> Adapter("ann", rank=8, alpha=16).scale
    2.0
    """

    name: str
    rank: int
    alpha: float | None = None
    dropout: float = 0.0
    rslora: bool = False
    factor: float = 1.0
    a_initializer: Any = "he_uniform"
    b_initializer: Any = "zeros"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(f"The name of an adapter is made of letters, digits and underscores, found {self.name!r}.")
        who = f"Adapter {self.name!r}"
        object.__setattr__(self, "rank", arguments.positive(f"{who}: rank", self.rank))
        alpha = arguments.plain(f"{who}: alpha", self.rank if self.alpha is None else self.alpha, ends="()")
        dropout = arguments.plain(f"{who}: dropout", self.dropout, 0, 1)
        factor = arguments.finite(f"{who}: factor", self.factor)
        for name, value in {"alpha": alpha, "dropout": dropout, "factor": factor, "rslora": bool(self.rslora)}.items():
            object.__setattr__(self, name, value)

    @property
    def scale(self) -> float:
        """What A @ B is multiplied by: factor alpha / rank, or factor alpha / sqrt(rank)."""
        assert self.alpha is not None  # resolved above
        return self.factor * self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
