"""Keras's `mixed_precision`: the default dtype policy under its older names.

>>> from fanin.layers import Dense
>>> set_global_policy("mixed_bfloat16")
>>> Dense(2).compute_dtype, Dense(2).variable_dtype
('bfloat16', 'float32')
"""

from __future__ import annotations

from fanin.config import dtype_policy, set_dtype_policy
from fanin.dtypes import DTypePolicy
from fanin.optimizers import LossScaleOptimizer

Policy = DTypePolicy
global_policy = dtype_policy
set_global_policy = set_dtype_policy

__all__ = [
    "DTypePolicy",
    "LossScaleOptimizer",
    "Policy",
    "dtype_policy",
    "global_policy",
    "set_dtype_policy",
    "set_global_policy",
]
