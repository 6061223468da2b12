"""Saving and loading, under Keras's names."""

from __future__ import annotations

from fanin.formats.archive import load_model
from fanin.models.model import Model
from fanin.registry import (
    custom_object_scope,
    deserialize,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
    serialize,
)

deserialize_keras_object = deserialize
serialize_keras_object = serialize


def save_model(model: Model, filepath: str, overwrite: bool = True) -> None:
    """As `model.save(filepath, overwrite)`."""
    model.save(filepath, overwrite=overwrite)


__all__ = [
    "custom_object_scope",
    "deserialize_keras_object",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "register_keras_serializable",
    "save_model",
    "serialize_keras_object",
]
