"""Masks in calls: read from the inputs, set on the inputs or the outputs."""

from __future__ import annotations

from itertools import count
from typing import Any

import torch

from fanin.graph.tree import leaves, leaves_by_key, tree_map
from fanin.masks import get_mask, set_mask, with_mask


def masks_of(inputs: Any) -> Any:
    """The masks of tensors, real or symbolic, in their structure; None for a tensor without one."""
    return get_mask(inputs) if isinstance(inputs, torch.Tensor) else tree_map(get_mask, inputs)


def has_mask(masks: Any) -> bool:
    """Whether any of them is there."""
    if isinstance(masks, (list, tuple, dict)):
        return any(map(has_mask, masks.values() if isinstance(masks, dict) else masks))
    return masks is not None


def masks_for(values: Any, masks: Any, who: str | None = None) -> list[Any]:
    """The mask, or None, of each leaf of `values`: those of a dict match by key, else as Keras counts, by sorted keys.

    Another number of them is a ValueError that names `who`; without a name what is too much or missing does not count.
    """
    if isinstance(values, dict) and isinstance(masks, dict):
        return [mask for key, value in values.items() for mask in masks_for(value, masks.get(key), who)]
    places = count()
    order = list(leaves_by_key(tree_map(lambda _: next(places), values)))
    given = list(leaves_by_key(masks)) if has_mask(masks) else []
    if given and len(given) != len(order) and who is not None:
        raise ValueError(f"{who}: expected a mask or None for each of {len(order)} tensors, found {len(given)}.")
    found = [None] * len(order)
    for place, mask in zip(order, given, strict=False):
        found[place] = mask
    return found


def with_masks(who: str, inputs: Any, masks: Any) -> Any:
    """The inputs of `who`, those that have a mask as another tensor object, which carries it."""
    left = iter(masks_for(inputs, masks, who))

    def mark(leaf: Any) -> Any:
        mask = next(left)
        return leaf if mask is None else with_mask(leaf, mask)

    return tree_map(mark, inputs)


def carrying(outputs: Any, masks: list[Any], inputs: Any) -> Any:
    """The outputs of a call, each carrying its mask, but those that carry one already: these keep it, as in Keras.

    An output that is an input is not marked itself.
    """
    left = iter(masks)
    shared = {id(leaf) for leaf in leaves(inputs)}

    def mark(output: Any) -> Any:
        mask = next(left)
        if mask is None or not isinstance(output, torch.Tensor) or get_mask(output) is not None:
            return output
        if id(output) in shared:
            return with_mask(output, mask)
        set_mask(output, mask)
        return output

    return tree_map(mark, outputs)
