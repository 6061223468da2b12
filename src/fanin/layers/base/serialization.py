"""Layers as plain JSON data, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fanin import registry
from fanin.layers.base.layer import Layer, family


def serialize(layer: Layer) -> Any:
    """The JSON of a layer or model without its weights, in Keras's form.

    Raises TypeError for what is no layer; ValueError, with the way out, for what has no form in files.

    >>> from fanin.layers import Dense
    >>> deserialize(serialize(Dense(3, name="last"))).name
    'last'
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"layers.serialize: expected a layer, found {layer!r}.")
    return family.serialize(layer)


def deserialize(config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Layer:
    """The layer that `serialize`, here or in Keras, described, with new weights.

    Args:
        config: a config.
        custom_objects: names of your own functions and classes, for this call.

    Raises ValueError for a name that is not known, and for the config of something else than a layer.
    """
    found = registry.deserialize(family.with_module(config), custom_objects)
    if not isinstance(found, Layer):
        raise ValueError(f"layers.deserialize: expected the config of a layer, found {config!r}.")
    return found
