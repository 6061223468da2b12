"""Masks in calls on tensors: read from the inputs, set on the outputs."""

from __future__ import annotations

from typing import Any

import torch

from fanin.graph.tree import leaves, like_inputs, tree_map
from fanin.masks import get_mask, set_mask, with_mask


def masks_of(inputs: Any) -> Any:
    """The mask of a tensor, the masks of several in a list, or None where no tensor carries one."""
    if isinstance(inputs, torch.Tensor):
        return get_mask(inputs)
    found = [get_mask(leaf) for leaf in leaves(inputs)]
    return like_inputs(found) if any(mask is not None for mask in found) else None


def carrying(outputs: Any, masks: Any, inputs: Any) -> Any:
    """The outputs of a call, each carrying its mask. An output that is an input is not marked itself.

    Raises ValueError unless there is one mask (or None) for each output.
    """
    given = list(leaves(masks))
    count = sum(1 for _ in leaves(outputs))
    if given == [None]:
        given *= count
    if len(given) != count:
        raise ValueError(f"compute_mask gave {len(given)} masks for {count} outputs.")
    left = iter(given)
    shared = {id(leaf) for leaf in leaves(inputs)}

    def mark(output: Any) -> Any:
        mask = next(left)
        if not isinstance(output, torch.Tensor) or get_mask(output) is mask:
            return output
        if id(output) in shared:
            return with_mask(output, mask)
        set_mask(output, mask)
        return output

    return tree_map(mark, outputs)
