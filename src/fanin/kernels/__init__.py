"""Kernel schemes: how a layer's kernel is stored and how it acts."""

from fanin.kernels.base import KernelScheme, Slot
from fanin.kernels.full import Full

__all__ = ["Full", "KernelScheme", "Slot"]
