"""Saving and loading, under Keras's names."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from fanin.formats import weights
from fanin.models.loading import load_model, save_model
from fanin.registry import (
    custom_object_scope,
    deserialize,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    serialize,
)

CustomObjectScope = custom_object_scope
deserialize_keras_object = deserialize
serialize_keras_object = serialize


def save_weights(model: nn.Module, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
    """As `model.save_weights(filepath, overwrite)`, for any nn.Module."""
    weights.save_weights(model, filepath, overwrite)


def load_weights(
    model: nn.Module, filepath: str | os.PathLike[str], skip_mismatch: bool = False, **kwargs: Any
) -> None:
    """As `model.load_weights(filepath, skip_mismatch)`, for any nn.Module."""
    weights.load_weights(model, filepath, skip_mismatch, **kwargs)


__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "load_weights",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
]
