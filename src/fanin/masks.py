"""Masks that travel with tensors: booleans (B, T, ...) that say which entries of (B, T, ..., U) count.

A mask is the attribute `_keras_mask` of its tensor, Keras's own name for it. Layers read it from their inputs and set
it on their outputs; losses and metrics read it from the predictions. Other torch operations drop it.
"""

from __future__ import annotations

from typing import Any

import torch


def get_mask(tensor: Any) -> torch.Tensor | None:
    """The mask that a tensor carries, or None."""
    return getattr(tensor, "_keras_mask", None)


def with_mask(tensor: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The same values, carrying `mask`: another tensor object, so that whoever holds `tensor` sees no change."""
    carrier = tensor.view_as(tensor)
    set_mask(carrier, mask)
    return carrier


def set_mask(tensor: torch.Tensor, mask: torch.Tensor | None) -> None:
    """Let a tensor that nobody else holds carry `mask`."""
    tensor._keras_mask = mask  # type: ignore[attr-defined]


def both(mask: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    """What two masks let through together; None lets everything through. (B, T, 1) fits (B, T)."""
    if mask is None or other is None:
        return mask if other is None else other
    if mask.ndim == other.ndim + 1 and mask.shape[-1] == 1:
        other = other.unsqueeze(-1)
    return mask & other
