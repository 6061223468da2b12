"""What an activation is, and the family of all that are known by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fanin.registry import Family

Activation = Callable[[Tensor], Tensor]
family: Family[Activation] = Family("activation", "keras.activations")
