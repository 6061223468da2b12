"""Gradients made smaller, in Keras's three ways. All give new tensors, and leave those given as they are."""

from __future__ import annotations

import torch
from torch import Tensor


def clip_values(gradients: list[Tensor], limit: float) -> list[Tensor]:
    """Every number cut to [-limit, limit]."""
    return list(torch._foreach_clamp_max(torch._foreach_clamp_min(gradients, -limit), limit))


def clip_norms(gradients: list[Tensor], limit: float) -> list[Tensor]:
    """Each tensor g scaled to a norm of at most `limit`: g limit / max(|g|, limit)."""
    norms = torch._foreach_clamp_min(torch._foreach_norm(gradients), limit)
    return list(torch._foreach_mul(gradients, torch._foreach_mul(torch._foreach_reciprocal(norms), limit)))


def clip_global_norm(gradients: list[Tensor], limit: float) -> list[Tensor]:
    """All tensors scaled together so that their joint norm n is at most `limit`: g limit / max(n, limit).

    A norm that is not finite makes every gradient NaN, as in Keras: a broken step is loud.
    """
    norms = list(torch._foreach_norm(gradients))
    alike = all(n.device == norms[0].device and n.dtype == norms[0].dtype for n in norms)
    if not alike:
        norms = [n.to(norms[0].device, torch.float32) for n in norms]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    scale = limit / norm.clamp(min=limit) + (norm - norm)
    return list(torch._foreach_mul(gradients, scale)) if alike else [g * scale.to(g.device, g.dtype) for g in gradients]
