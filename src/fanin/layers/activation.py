"""Any activation function as a layer."""

from __future__ import annotations

from typing import Any

import torch

from fanin import activations
from fanin.layers.base.layer import Layer, family
from fanin.layers.same_shape import SameShape


@family.entry()
class Activation(SameShape):
    """output = activation(inputs), of any shape.

    Args:
        activation: a name such as "relu", a callable on tensors, a layer or an nn.Module; None is linear.
        **kwargs: name, dtype and the other arguments of a layer.

    ValueError for an unknown name, TypeError for what cannot be called. After Keras's `Activation`.

    >>> Activation("relu")(torch.tensor([[-1.0, 2.0]])).tolist()
    [[0.0, 2.0]]
    """

    casts_integers = True

    def __init__(self, activation: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, inputs: torch.Tensor) -> Any:
        """activation(inputs)."""
        return self.activation(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input, for fanin's own functions but `glu`; others are tried on tensors without memory."""
        return tuple(input_shape) if self._call_adds_nothing() else Layer.compute_output_shape(self, input_shape)

    def _call_adds_nothing(self) -> bool:
        home = getattr(self.activation, "__module__", None) or ""
        return home.startswith(f"{activations.__name__}.") and self.activation is not activations.glu

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them. ValueError for a function that no file could bring back."""
        try:
            return {**super().get_config(), "activation": activations.serialize(self.activation)}
        except ValueError as error:
            raise ValueError(f"Layer {self.name!r}, argument 'activation': {error}") from None
