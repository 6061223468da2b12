"""Keras's `backend`: the global settings under its older name."""

from __future__ import annotations

from fanin.config import backend, clear_session, epsilon, floatx, set_epsilon, set_floatx
from fanin.graph.symbolic import is_keras_tensor

__all__ = ["backend", "clear_session", "epsilon", "floatx", "is_keras_tensor", "set_epsilon", "set_floatx"]
