"""Shapes as layers take them: tuples of sizes, None where unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def known_shape(leaf: Any) -> Any:
    """The shape of an input, for `build`: while torch.compile traces sizes that vary, None for all but the last."""
    if leaf is None:
        return None
    sizes = tuple(leaf.shape)
    known = [size if isinstance(size, int) else None for size in sizes[:-1]]
    return (*known, *(int(size) for size in sizes[-1:]))


def map_shapes(function: Callable[[tuple[int | None, ...]], Any], value: Any) -> Any:
    """The structure with `function` applied to each shape, a tuple or list of sizes."""
    if isinstance(value, dict):
        return {key: map_shapes(function, item) for key, item in value.items()}
    if all(item is None or isinstance(item, int) for item in value):
        return function(tuple(value))
    return [map_shapes(function, item) for item in value]


def first_shape(name: str, kwargs: dict[str, Any]) -> tuple[int | None, ...] | None:
    """The batch input shape that input_shape, input_dim, batch_size and batch_input_shape give together, or None."""
    batch_input_shape, input_shape = kwargs.pop("batch_input_shape", None), kwargs.pop("input_shape", None)
    input_dim, batch_size = kwargs.pop("input_dim", None), kwargs.pop("batch_size", None)
    if kwargs.pop("autocast", True) is False:
        raise ValueError(f"Layer {name!r}: autocast=False is not supported; give the layer a dtype for its inputs.")
    given = [key for key, value in (("batch_input_shape", batch_input_shape), ("input_shape", input_shape),
                                    ("input_dim", input_dim)) if value is not None]  # fmt: skip
    if len(given) > 1:
        raise ValueError(f"Layer {name!r}: give only one of {', '.join(given)}.")
    if batch_input_shape is not None:
        return shape_tuple(batch_input_shape, f"layer {name!r}: batch_input_shape")
    if input_dim is not None:
        input_shape = (input_dim,)
    if input_shape is None:
        return None
    return shape_tuple((batch_size, *shape_tuple(input_shape, f"layer {name!r}: input_shape")), f"layer {name!r}")


def shape_tuple(shape: Any, who: str) -> tuple[int | None, ...]:
    """A shape from any sequence of positive ints and None, else a ValueError naming `who`."""
    try:
        sizes = tuple(shape)
    except TypeError:
        raise ValueError(f"{who}: expected a tuple of sizes, found {shape!r}.") from None
    for size in sizes:
        whole = size is None or (not isinstance(size, bool) and hasattr(size, "__index__") and size.__index__() >= 0)
        if not whole:
            raise ValueError(f"{who}: expected a tuple of sizes (None where unknown), found {shape!r}.")
    return tuple(None if size is None else size.__index__() for size in sizes)
