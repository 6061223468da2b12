"""Whatever numpy can read becomes a tensor, without a silent overflow."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from fanin.dtypes import dtype_name
from fanin.layers.base.devices import device_of


def as_tensor(value: Any, who: str = "input") -> torch.Tensor:
    """A tensor from a tensor, a numpy array, a number, or nested lists; numpy memory is shared where torch can.

    Columns of numbers and bools in one of pandas' tables become numbers of one dtype, floats where one is missing.
    Raises TypeError for objects, strings and dates, naming `who` and the columns.
    """
    if isinstance(value, torch.Tensor):
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O" and hasattr(value, "dtypes"):
            array = _from_table(value, who)
    except ValueError as error:
        raise TypeError(f"{who}: expected an array of numbers, found rows of different lengths: {error}") from None
    if array.dtype.kind not in "biufc":
        raise TypeError(
            f"{who}: expected an array of numbers, found {type(value).__name__} with numpy dtype {array.dtype}."
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if any(stride < 0 for stride in array.strides) or not (array.flags.writeable and array.flags.aligned):
        array = array.copy()  # torch takes neither negative strides nor read-only or unaligned memory
    return torch.from_numpy(array)


def _from_table(table: Any, who: str) -> np.ndarray[Any, Any]:
    """The numbers of a DataFrame or Series whose columns differ in their dtype, or in which some are missing."""
    dtypes = dict(table.dtypes) if table.ndim == 2 else {table.name: table.dtypes}
    others = [f"{name!r} ({dtype})" for name, dtype in dtypes.items() if dtype.kind not in "biufc"]
    if others:
        raise TypeError(
            f"{who}: expected columns of numbers, found {', '.join(others[:5])}{' ...' if others[5:] else ''}. "
            "Turn them into numbers, or leave them out."
        )
    has_floats = any(dtype.kind in "fc" for dtype in dtypes.values()) or bool(np.any(table.isna()))
    found: np.ndarray[Any, Any] = table.to_numpy(np.float64 if has_floats else np.int64, na_value=np.nan)
    return found


def tensors_on(tree: Any, device: torch.device, who: str) -> Any:
    """A structure with its arrays as tensors on a device; tensors stay where they are."""
    return pytree.tree_map(
        lambda leaf: leaf if isinstance(leaf, torch.Tensor) else as_tensor(leaf, who).to(device), tree
    )


def checked_cast(tensor: torch.Tensor, dtype: torch.dtype, who: str = "input") -> torch.Tensor:
    """`tensor.to(dtype)`, refusing finite numbers that would become infinite."""
    if tensor.dtype == dtype:
        return tensor
    result = tensor.to(dtype)
    if not dtype.is_floating_point:
        return result
    largest_before = torch.finfo(tensor.dtype).max if tensor.dtype.is_floating_point else 2.0**63
    if largest_before > torch.finfo(dtype).max and bool((torch.isinf(result) & torch.isfinite(tensor)).any()):
        largest = tensor[torch.isfinite(tensor)].abs().max().item()
        raise ValueError(
            f"{who}: the value {largest:g} does not fit {dtype_name(dtype)} (largest {torch.finfo(dtype).max:.3g}). "
            "Scale the data, or use a wider dtype."
        )
    return result


def is_array(value: Any) -> bool:
    """Whether this is an array of somebody else's, and no tensor."""
    return hasattr(value, "__array__") and not isinstance(value, torch.Tensor) and not inspect.isclass(value)


def as_given(leaf: Any, layer: Any) -> Any:
    """For layers that cast by themselves: an array as a tensor of its own dtype on the layer's device, everything else
    as it is.

    Raises TypeError for complex numbers, naming the layer.
    """
    who = f"Layer {layer.name!r}"
    found = as_tensor(leaf, who).to(device_of(layer)) if is_array(leaf) else leaf
    if isinstance(found, torch.Tensor) and found.is_complex():
        raise TypeError(f"{who} takes real numbers, found {found.dtype}.")
    return found


def wide_dtype(dtype: torch.dtype, compute: torch.dtype) -> torch.dtype:
    """The dtype for statistics of numbers of `dtype` in a layer that computes in `compute`: float32 at least."""
    return torch.promote_types(torch.promote_types(dtype, compute), torch.float32)
