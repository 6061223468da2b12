"""Kernel schemes: how a layer's kernel is stored and how it acts."""

from fanin.kernels.adapter import Adapter
from fanin.kernels.base import KernelScheme, Slot
from fanin.kernels.full import Full
from fanin.kernels.low_rank import LowRank
from fanin.kernels.transposed import Transposed

__all__ = ["Adapter", "Full", "KernelScheme", "LowRank", "Slot", "Transposed"]
