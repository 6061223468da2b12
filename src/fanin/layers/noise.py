"""What layers share that drop, add or multiply at random: checks of arguments, and the shape of what they draw."""

from __future__ import annotations

from typing import Any

from fanin import arguments


def checked_noise_shape(shape: Any, who: str) -> tuple[int | None, ...] | None:
    """A `noise_shape` as a tuple of positive sizes and None, or None; else a ValueError naming `who`."""
    if shape is None:
        return None
    sizes = tuple(shape) if isinstance(shape, (list, tuple)) else (0,)
    if not all(size is None or arguments.is_whole(size, 1) for size in sizes):
        raise ValueError(f"{who} must be a tuple of positive sizes and None, found {shape!r}.")
    return tuple(None if size is None else int(size) for size in sizes)


def drop_config(layer: Any) -> dict[str, Any]:
    """The arguments of a layer that drops, as Keras writes them."""
    shape = None if layer.noise_shape is None else list(layer.noise_shape)
    return {"rate": layer.rate, "seed": layer.seed, "noise_shape": shape}


def shape_to_draw(given: tuple[int | None, ...] | None, shape: tuple[int, ...], who: str) -> tuple[int, ...]:
    """The shape of the noise for inputs of that shape; ValueError, naming `who`, if it does not broadcast to them."""
    if given is None:
        return shape
    if len(given) == len(shape):
        pairs = list(zip(given, shape, strict=True))
        if all(size in (None, 1, full) for size, full in pairs):
            return tuple(full if size is None else size for size, full in pairs)
    raise ValueError(f"{who}: noise_shape={given} does not broadcast to inputs of shape {shape}.")
