"""Layers of several inputs: shapes for `build(self, left_shape, right_shape)` and masks for `call(self, left, right,
left_mask=None)`, told by the names of the arguments, as in Keras 3."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fanin.graph.tree import tree_map
from fanin.layers.base.mask_propagation import masks_of

_SHAPE, _MASK = "_shape", "_mask"


def shapes_for(
    layer: Any, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], shape_of: Callable[..., Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments for `build` or `compute_output_shape` of a layer that is called with `args` and `kwargs`.

    The shape of the first input; to a method of several `..._shape`, one for each input that is there.
    """
    names = [name for name in inspect.signature(method).parameters if name.endswith(_SHAPE)]
    if len(names) < 2:
        return (tree_map(shape_of, args[0]) if args else None,), {}
    given = _by_name(layer, args, kwargs)
    unknown = [name for name in names if name.removesuffix(_SHAPE) not in layer._call_arguments]
    if unknown:
        raise ValueError(
            f"Layer {layer.name!r}: its {method.__name__} takes {unknown[0]!r}, but its `call` has no argument "
            f"{unknown[0].removesuffix(_SHAPE)!r}."
        )
    found = {name: given.get(name.removesuffix(_SHAPE)) for name in names}
    return (), {name: tree_map(shape_of, value) for name, value in found.items() if value is not None}


def mask_arguments(parameters: frozenset[str]) -> frozenset[str]:
    """The parameters of a `call` that are masks of others: "left_mask" beside "left"."""
    return frozenset(name for name in parameters if name.endswith(_MASK) and name.removesuffix(_MASK) in parameters)


def masks_by_name(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The masks of a call's inputs for those mask arguments that are not given."""
    given = _by_name(layer, args, kwargs)
    inputs = {name: given.get(name.removesuffix(_MASK)) for name in layer._mask_arguments if given.get(name) is None}
    found = {name: masks_of(value) for name, value in inputs.items() if value is not None}
    return {name: mask for name, mask in found.items() if mask is not None}


def _by_name(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names."""
    known = {name: value for name, value in kwargs.items() if name in layer._call_arguments}
    return inspect.signature(layer.call).bind_partial(*args, **known).arguments
