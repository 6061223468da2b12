"""A rectifier whose slope is learned."""

from __future__ import annotations

from typing import Any

import torch

from fanin import constraints, initializers, regularizers
from fanin.layers.axes import checked_axes
from fanin.layers.base.input_spec import InputSpec
from fanin.layers.base.layer import family, pure
from fanin.layers.base.rule import Rule, Ruled
from fanin.weights import CONSTRAINTS, REGULARIZERS


@family.entry()
class PReLU(Ruled):
    """max(x, 0) + alpha * min(x, 0), with a weight `alpha`.

    Shapes: inputs (B, d1, ..., dn) -> the same; alpha (d1, ..., dn), with 1 in the place of shared axes.

    Args:
        alpha_initializer: default zeros.
        alpha_regularizer: default None.
        alpha_constraint: default None.
        shared_axes: an axis or several, counted from 1 as 0 is the batch, along which alpha is the same.
        **kwargs: name, dtype, weights and the other arguments of a layer.

    ValueError, at build, for a shared axis that the input lacks, and for a size that is unknown and not shared. After
    Keras's `PReLU`; source: He et al. 2015, https://arxiv.org/abs/1502.01852

    >>> PReLU(alpha_initializer="ones")(torch.tensor([[-2.0, 3.0]])).tolist()
    [[-2.0, 3.0]]
    """

    alpha_regularizer = Rule(REGULARIZERS, regularizers.get)
    alpha_constraint = Rule(CONSTRAINTS, constraints.get)
    casts_integers = True
    supports_masking = True

    def __init__(
        self,
        alpha_initializer: Any = "Zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.shared_axes = None if shared_axes is None else checked_axes(shared_axes, "PReLU: shared_axes")
        self.alpha_initializer = initializers.get(alpha_initializer)
        self._hold_place("alpha")
        self.alpha_regularizer, self.alpha_constraint = alpha_regularizer, alpha_constraint

    def build(self, input_shape: Any) -> None:
        """Make alpha for inputs (B, d1, ..., dn)."""
        sizes = dict(enumerate(input_shape))
        del sizes[0]
        shared = self.shared_axes or []
        if any(axis not in sizes for axis in shared):
            raise ValueError(
                f"Layer {self.name!r}: shared_axes={shared} must be among {list(sizes)}, the axes of an input of "
                f"shape {tuple(input_shape)} without its batch."
            )
        own = {axis: size for axis, size in sizes.items() if axis not in shared}
        if None in own.values():
            raise ValueError(
                f"Layer {self.name!r}: the sizes of axes that are not shared must be known to make alpha, found "
                f"shape {tuple(input_shape)} and shared_axes={self.shared_axes}."
            )
        self._fill("alpha", tuple(own.get(axis, 1) for axis in sizes), self.alpha_initializer)
        self.input_spec = InputSpec(ndim=len(sizes) + 1, axes=own)
        self._use_initial_weights()

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs (B, d1, ..., dn) -> the same shape."""
        alpha: torch.Tensor = self.alpha
        return torch.relu(inputs) - alpha.to(inputs.dtype) * torch.relu(-inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        own = self._described("alpha_initializer", "alpha_regularizer", "alpha_constraint")
        return {**super().get_config(), **own, "shared_axes": self.shared_axes}

    def _shape_from_state(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        return (None, *shapes["alpha"]) if "alpha" in shapes else None
