"""What layers share that normalize along some axes, each slice by itself."""

from __future__ import annotations

from typing import Any

from fanin.layers.axes import checked_axes, from_front, known_sizes
from fanin.layers.base.convert import as_given
from fanin.layers.base.input_spec import InputSpec
from fanin.layers.base.layer import Layer


class AlongAxes(Layer):
    """A layer with an argument `axis`, one or several, which casts its inputs by itself.

    Attributes:
        axis: the axes as given: an integer, or a list.
    """

    casts_integers = True
    axis: Any

    def _set_axes(self, axis: Any) -> None:
        """Keep `axis`; TypeError if it is no integer or several, ValueError if it is none."""
        who = f"{type(self).__name__}: axis"
        axes = checked_axes(axis, who)
        if not axes:
            raise ValueError(f"{who} must name at least one axis, found none.")
        self.axis = axes if isinstance(axis, (list, tuple)) else axes[0]

    def _convert(self, leaf: Any) -> Any:
        return as_given(leaf, self)  # a cast to 16 bits would come before the statistics

    def _axes(self, rank: int) -> tuple[int, ...]:
        return from_front(checked_axes(self.axis, "axis"), rank, f"Layer {self.name!r}")

    def _sizes_along(self, input_shape: Any) -> tuple[int, ...]:
        """The sizes of the weights for inputs of this shape. ValueError where one of them is not known."""
        return known_sizes(input_shape, self._axes(len(input_shape)), f"Layer {self.name!r}")

    def _settle_axes(self, input_shape: Any) -> None:
        """The weights are made: from now on `axis` is a list, and inputs have these sizes there."""
        given = checked_axes(self.axis, "axis")
        self.input_spec = InputSpec(axes={axis: input_shape[axis] for axis in given})
        self.axis = sorted(given)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        self._axes(len(input_shape))
        return tuple(input_shape)
