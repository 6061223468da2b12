"""Normalization of each row by its own statistics."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fanin.layers.affine import Affine
from fanin.layers.along_axes import AlongAxes
from fanin.layers.axes import checked_axes, smallest_shape
from fanin.layers.base.convert import wide_dtype
from fanin.layers.base.layer import family, pure


@family.entry()
class LayerNormalization(AlongAxes, Affine):
    """outputs = (inputs - mean) / sqrt(variance + epsilon) * gamma + beta, mean and variance taken along `axis`.

    Shapes: inputs (B, ..., C) -> the same; gamma and beta (C,), for several axes the sizes of these, in their order in
    the input. The variance is the mean square, without n - 1. Training and inference are the same.

    Args:
        axis: an axis, default the last, or several.
        epsilon: added to the variance.
        center: whether there is a beta.
        scale: whether there is a gamma.
        beta_initializer: default zeros.
        gamma_initializer: default ones.
        beta_regularizer: penalty on beta, one entry in `losses`; likewise `gamma_regularizer`.
        gamma_regularizer: penalty on gamma.
        beta_constraint: applied to beta after each update; likewise `gamma_constraint`.
        gamma_constraint: applied to gamma.
        **kwargs: name, dtype, weights and the other arguments of a layer.

    Arithmetic is float32 at least, also under mixed_bfloat16. Raises ValueError for axes that the input lacks, that
    come twice, or whose size is unknown, and for `rms_scaling=True`; TypeError for an axis that is no integer. After
    Keras's `LayerNormalization`; source: Ba et al. 2016, https://arxiv.org/abs/1607.06450

    >>> layer = LayerNormalization(epsilon=0.0)
    >>> layer(torch.tensor([[1.0, 3.0], [10.0, 30.0]])).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """

    def __init__(
        self,
        axis: Any = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ):
        if kwargs.pop("rms_scaling", False):
            raise ValueError("LayerNormalization: rms_scaling=True, which Keras deprecates, is not supported.")
        super().__init__(
            epsilon=epsilon,
            center=center,
            scale=scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
            **kwargs,
        )
        self._set_axes(axis)

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs with known sizes on `axis`, which becomes a list."""
        self._make_affine(self._sizes_along(input_shape))
        self._use_initial_weights()
        self._settle_axes(input_shape)

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """The inputs, normalized."""
        x = inputs.to(wide_dtype(inputs.dtype, self.dtype_policy.compute))
        axes = self._axes(x.ndim)
        last = tuple(range(x.ndim - len(axes), x.ndim))
        x = x if axes == last else x.movedim(axes, last)
        x = F.layer_norm(x, x.shape[last[0] :], *self._affine(x.dtype), self.epsilon)
        x = x if axes == last else x.movedim(last, axes)
        return x.to(self.dtype_policy.compute)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        own = {
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "rms_scaling": False,
            **self._described(
                "beta_initializer",
                "gamma_initializer",
                "beta_regularizer",
                "gamma_regularizer",
                "beta_constraint",
                "gamma_constraint",
            ),
        }
        return {**super().get_config(), **own}

    def _shape_from_state(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        sizes = shapes.get("gamma", shapes.get("beta"))
        return None if sizes is None else smallest_shape(checked_axes(self.axis, "axis"), sizes)
