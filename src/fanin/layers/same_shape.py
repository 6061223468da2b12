"""What layers have in common that have no weights and keep the shape of their input."""

from __future__ import annotations

from typing import Any

from fanin.layers.base.layer import Layer


class SameShape(Layer):
    """The base of such layers: built from the start, unless a subclass has a `build` of its own; masks go through."""

    supports_masking = True

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.built = type(self).build is Layer.build

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return tuple(input_shape)
