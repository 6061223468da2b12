"""Symbolic tensors, the calls that made them, and their lowering to a `torch.fx.Graph`."""

from fanin.graph.symbolic import SymbolicTensor, is_symbolic

__all__ = ["SymbolicTensor", "is_symbolic"]
