"""A layer that does nothing."""

from __future__ import annotations

from typing import Any

from fanin.graph.infer import Spec
from fanin.graph.tree import tree_map
from fanin.layers.base.layer import family, pure
from fanin.layers.same_shape import SameShape


@family.entry()
class Identity(SameShape):
    """output = inputs, also lists and dicts of them: stands where a layer may be left out. After Keras's `Identity`.

    >>> import torch
    >>> Identity()(torch.ones(1, 2)).tolist()
    [[1.0, 1.0]]
    """

    @pure
    def call(self, inputs: Any) -> Any:
        """The inputs."""
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape, or shapes, of the input."""
        return input_shape

    def _output_specs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        compute = self.dtype_policy.compute
        return tree_map(lambda x: Spec(x.shape, compute if x.is_floating_point() else x.dtype), args[0])

    def get_config(self) -> dict[str, Any]:
        """The arguments that every layer has."""
        return super().get_config()  # without this method, `Layer` would describe `**kwargs` as well
