"""Masks in calls: read from the inputs, set on the inputs or the outputs."""

from __future__ import annotations

from typing import Any

import torch

from fanin.graph.tree import leaves, tree_map
from fanin.masks import get_mask, set_mask, with_mask


def masks_of(inputs: Any) -> Any:
    """The masks of tensors, real or symbolic, in their structure; None for a tensor without one."""
    return get_mask(inputs) if isinstance(inputs, torch.Tensor) else tree_map(get_mask, inputs)


def has_mask(masks: Any) -> bool:
    """Whether any of them is there."""
    if isinstance(masks, (list, tuple, dict)):
        return any(map(has_mask, masks.values() if isinstance(masks, dict) else masks))
    return masks is not None


def with_masks(who: str, inputs: Any, masks: Any) -> Any:
    """The inputs of `who`, those that have a mask as another tensor object, which carries it.

    The masks of a dict match by key, others by position. Another number of masks is a ValueError.
    """
    if isinstance(inputs, dict) and isinstance(masks, dict):
        return {key: with_masks(who, value, masks.get(key)) for key, value in inputs.items()}
    if not has_mask(masks):
        return inputs
    given, count = list(leaves(masks)), sum(1 for _ in leaves(inputs))
    if len(given) != count:
        raise ValueError(f"{who} takes a mask or None for each of {count} inputs, found {len(given)}.")
    left = iter(given)

    def mark(leaf: Any) -> Any:
        mask = next(left)
        return leaf if mask is None else with_mask(leaf, mask)

    return tree_map(mark, inputs)


def carrying(outputs: Any, masks: Any, inputs: Any) -> Any:
    """The outputs of a call, each carrying its mask. An output that is an input is not marked itself.

    Raises ValueError unless there is one mask (or None) for each output, or no mask at all.
    """
    masked = has_mask(masks)
    if not masked and not has_mask(masks_of(outputs)):
        return outputs
    count = sum(1 for _ in leaves(outputs))
    given = list(leaves(masks)) if masked else [None] * count
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
