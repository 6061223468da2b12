"""What a model does with masks: the layers inside hand them on."""

from __future__ import annotations

from typing import Any

from fanin.graph.node import record
from fanin.graph.symbolic import is_symbolic
from fanin.graph.tree import tree_map
from fanin.layers.base.layer import Layer
from fanin.layers.base.mask_propagation import has_mask, masks_of, with_masks
from fanin.layers.base.modes import in_eval_mode, state_kept
from fanin.layers.base.scope import CallScope, Record, current
from fanin.models.network import Network


class MaskedModel(Layer):
    """The part of a model that deals with masks. A `call` of its own hands them on with its tensors."""

    _network: Network | None = None

    def handles_masks(self) -> bool:
        """True: masks go to the layers inside."""
        return True

    def makes_masks(self) -> bool:
        """Whether it has a `compute_mask` of its own, or its graph makes a mask."""
        if type(self).compute_mask is not MaskedModel.compute_mask:
            return True
        return self._network is not None and any(symbol.mask is not None for symbol in self._network.output_symbols)

    def hands_on_masks(self, mask: Any) -> bool:
        """As a layer's; a graph may hand on any mask."""
        return super().hands_on_masks(mask) or (self._network is not None and has_mask(mask))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The masks of the outputs for these inputs, in their structure; without a graph `mask` itself, as in Keras."""
        if self._network is None:
            return mask
        if not is_symbolic(inputs):
            return masks_of(self(inputs, mask=mask))
        try:
            return record(_MaskOf(self), (inputs, mask), {})
        except ValueError:  # it cannot be tried without values; real tensors will carry their masks
            return None

    def _with_masks(self, inputs: Any, outputs: Any, mask: Any) -> Any:
        if self._network is not None and type(self).compute_mask is MaskedModel.compute_mask:
            return outputs  # which carry those that the layers inside made
        return super()._with_masks(inputs, outputs, mask)

    def _call_on_tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask = kwargs.get("mask")
        if mask is not None and args and "mask" not in self._call_arguments:  # the inputs take it to the layers inside
            who, inputs = f"Model {self.name!r}", tree_map(self._convert, args[0])
            args = (with_masks(who, inputs, self._given_masks(mask)), *args[1:])
        return super()._call_on_tensors(args, kwargs)


class _MaskOf:
    """A model's `compute_mask` as a function in the graph of another: it runs the model, and leaves no trace in it."""

    __name__ = "mask"

    def __init__(self, model: MaskedModel):
        self.model = model

    def __call__(self, inputs: Any, mask: Any) -> Any:
        previous, current.scope = current.scope, CallScope(None, Record(), False, trial=True)
        try:
            with in_eval_mode(self.model.modules()), state_kept(self.model):
                return self.model.compute_mask(inputs, mask)
        finally:
            current.scope = previous
