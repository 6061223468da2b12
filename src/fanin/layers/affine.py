"""What normalization layers end with: outputs = normalized * gamma + beta."""

from __future__ import annotations

from typing import Any

import torch

from fanin import arguments, constraints, initializers, regularizers
from fanin.layers.base.rule import Rule, Ruled
from fanin.weights import CONSTRAINTS, REGULARIZERS


class Affine(Ruled):
    """A layer with a scale `gamma` and an offset `beta`; `scale=False` or `center=False` leaves one out, as None."""

    beta_regularizer = Rule(REGULARIZERS, regularizers.get)
    gamma_regularizer = Rule(REGULARIZERS, regularizers.get)
    beta_constraint = Rule(CONSTRAINTS, constraints.get)
    gamma_constraint = Rule(CONSTRAINTS, constraints.get)
    casts_integers = True
    supports_masking = True

    def __init__(
        self,
        *,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        beta_constraint: Any,
        gamma_constraint: Any,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.epsilon = arguments.number(f"{type(self).__name__}: epsilon", epsilon)
        self.center, self.scale = bool(center), bool(scale)
        for name, used in (("gamma", self.scale), ("beta", self.center)):
            if used:
                self._hold_place(name)
            else:
                self.register_parameter(name, None)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer, self.gamma_regularizer = beta_regularizer, gamma_regularizer
        self.beta_constraint, self.gamma_constraint = beta_constraint, gamma_constraint

    def _make_affine(self, shape: tuple[int, ...]) -> None:
        if self.scale:
            self._fill("gamma", shape, self.gamma_initializer)
        if self.center:
            self._fill("beta", shape, self.beta_initializer)

    def _affine(self, dtype: torch.dtype) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Gamma and beta in the dtype of the computation, each None if left out."""
        gamma, beta = self.gamma, self.beta
        return None if gamma is None else gamma.to(dtype), None if beta is None else beta.to(dtype)
