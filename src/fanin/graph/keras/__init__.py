"""Recorded calls as operations of Keras, and back."""

from fanin.graph.keras import shapes, table, values
from fanin.graph.keras.operation import Described
from fanin.graph.keras.spelling import as_operation

__all__ = ["Described", "as_operation", "shapes", "table", "values"]
