"""What a layer accepts: rank, sizes of axes, dtype, shape."""

from __future__ import annotations

from typing import Any

import torch

from fanin.dtypes import as_dtype, dtype_name


class InputSpec:
    """The rank, dtype and shape that a layer's input must have; None anywhere accepts everything.

    Args:
        dtype: a dtype or its name.
        shape: the full shape, None where any size will do.
        ndim: the exact rank.
        max_ndim: the largest rank.
        min_ndim: the smallest rank.
        axes: axis -> size, as {-1: 784}.

    Raises TypeError for `axes` that are no dict; ValueError for an unknown dtype and an axis beyond the rank. Sizes and
    ranks are not checked, as in Keras's `InputSpec`.

    >>> InputSpec(min_ndim=2, axes={-1: 784})
    InputSpec(min_ndim=2, axes={-1: 784})
    """

    def __init__(
        self,
        dtype: Any = None,
        shape: tuple[int | None, ...] | None = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: dict[int, int | None] | None = None,
    ):
        self.dtype = None if dtype is None else as_dtype(dtype)
        self.shape = None if shape is None else tuple(shape)
        self.ndim = len(self.shape) if self.shape is not None else ndim
        self.max_ndim = max_ndim
        self.min_ndim = min_ndim
        if axes is not None and not isinstance(axes, dict):
            raise TypeError(f"InputSpec axes must be a dict of axis to size, found {axes!r}.")
        self.axes = {int(axis): size for axis, size in (axes or {}).items()}
        rank = self.ndim if self.ndim is not None else max_ndim
        if rank is not None:
            for axis in self.axes:
                if not -rank <= axis < rank:
                    raise ValueError(f"InputSpec axis {axis} does not exist in an input of rank {rank}.")

    def problem(self, shape: tuple[int | None, ...], dtype: torch.dtype) -> str | None:
        """What is wrong with an input of this shape and dtype: "expected ..., found ...", or None."""
        rank = len(shape)
        if self.ndim is not None and rank != self.ndim:
            return f"expected ndim={self.ndim}, found ndim={rank}"
        if self.max_ndim is not None and rank > self.max_ndim:
            return f"expected max_ndim={self.max_ndim}, found ndim={rank}"
        if self.min_ndim is not None and rank < self.min_ndim:
            return f"expected min_ndim={self.min_ndim}, found ndim={rank}"
        if self.dtype is not None and dtype != self.dtype:
            return f"expected dtype={dtype_name(self.dtype)}, found dtype={dtype_name(dtype)}"
        for axis, size in self.axes.items():
            if not -rank <= axis < rank or (size is not None and shape[axis] not in (size, None)):
                found = shape[axis] if -rank <= axis < rank else "no such axis"
                return f"expected axis {axis} to have size {size}, found {found}"
        if self.shape is not None:
            for wanted, found_size in zip(self.shape, shape, strict=True):
                if wanted is not None and found_size is not None and wanted != found_size:
                    return f"expected shape={self.shape}, found shape={shape}"
        return None

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain data."""
        dtype = None if self.dtype is None else dtype_name(self.dtype)
        return {"dtype": dtype, "shape": self.shape, "ndim": self.ndim, "max_ndim": self.max_ndim,
                "min_ndim": self.min_ndim, "axes": self.axes or None}  # fmt: skip

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InputSpec:
        """The spec that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value}" for key, value in self.get_config().items() if value is not None)
        return f"InputSpec({shown})"


def check_inputs(who: str, specs: Any, inputs: list[Any]) -> None:
    """Compare the inputs of a call with the layer's specs; a ValueError names the layer, the input and its shape.

    Args:
        who: the layer as it should be named in a message: "layer 'dense'".
        specs: None, one InputSpec, or one for each input.
        inputs: real or symbolic tensors.
    """
    if specs is None:
        return
    wanted = list(specs) if isinstance(specs, (list, tuple)) else [specs]
    if len(wanted) != len(inputs):
        raise ValueError(f"{who} expects {len(wanted)} input(s), found {len(inputs)}.")
    for position, (spec, value) in enumerate(zip(wanted, inputs, strict=True)):
        shape = tuple(value.shape)
        problem = None if spec is None else spec.problem(shape, value.dtype)
        if problem is not None:
            raise ValueError(f"Input {position} of {who} is incompatible: {problem}. Full shape received: {shape}.")
