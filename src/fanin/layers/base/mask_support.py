"""What a layer does with the masks of its inputs: hands them on, makes others, or says that they end here."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from fanin.graph.tree import leaves, tree_map
from fanin.layers.base.convert import as_tensor
from fanin.layers.base.devices import device_of
from fanin.layers.base.mask_propagation import carrying, has_mask, masks_for
from fanin.masks import get_mask


class MaskSupport(nn.Module):
    """The part of a layer that deals with masks.

    A subclass sets `supports_masking`, writes `compute_mask`, or takes `mask` in its `call`. Each gets the masks in the
    structure of the first argument, None for a tensor without one.
    """

    name: str
    supports_masking = False
    _call_arguments: frozenset[str] = frozenset()
    _mask_arguments: frozenset[str] = frozenset()

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of the output. Hands `mask` through where `supports_masking`; else TypeError for a real mask."""
        if not self.supports_masking and has_mask(mask):
            raise TypeError(f"Layer {self.name!r} does not support masking, found mask {mask!r}.")
        return mask if self.supports_masking else None

    def handles_masks(self) -> bool:
        """Whether a mask has a meaning for the layer: it says so, takes one, or makes one of its own."""
        takes_one = "mask" in self._call_arguments or bool(self._mask_arguments)
        return takes_one or self.supports_masking or self.makes_masks()

    def makes_masks(self) -> bool:
        """Whether it has a `compute_mask` of its own."""
        return type(self).compute_mask is not MaskSupport.compute_mask

    def hands_on_masks(self, mask: Any) -> bool:
        """Whether `compute_mask` says what the masks of the outputs are, in a call with these masks."""
        return self.makes_masks() or (self.supports_masking and has_mask(mask))

    def warn_of_lost_mask(self) -> None:
        """Say that a mask ends at this layer."""
        warnings.warn(f"Layer {self.name!r} does not support masking: the mask ends here.", stacklevel=2)

    def _given_masks(self, mask: Any) -> Any:
        """The `mask=` of a call as tensors, where the layer is."""

        def as_mask(leaf: Any) -> Any:
            if leaf is None or isinstance(leaf, torch.Tensor):
                return leaf
            return as_tensor(leaf, f"mask of layer {self.name!r}").to(device_of(self))

        return tree_map(as_mask, mask)

    def _with_masks(self, inputs: Any, outputs: Any, mask: Any) -> Any:
        """The outputs of a call on tensors with their masks: those that they carry, else what `compute_mask` says."""
        if not self.hands_on_masks(mask) or all(get_mask(output) is not None for output in leaves(outputs)):
            return outputs
        return carrying(outputs, self._masks_of_outputs(inputs, outputs, mask), inputs)

    def _masks_of_outputs(self, inputs: Any, outputs: Any, mask: Any) -> list[Any]:
        """What `compute_mask` says, for each leaf of the outputs. One of a layer's own must fit their number."""
        who = f"compute_mask of layer {self.name!r}" if self.makes_masks() else None
        return masks_for(outputs, self.compute_mask(inputs, mask), who)
