"""Where a graph begins: `Input(shape)` and the layer behind it."""

from __future__ import annotations

from typing import Any

from fanin.dtypes import as_dtype, dtype_name
from fanin.graph.node import input_symbol
from fanin.graph.symbolic import SymbolicTensor
from fanin.layers.base.layer import Layer, family, pure
from fanin.layers.base.shapes import shape_tuple


@family.entry()
class InputLayer(Layer):
    """The entry of a graph: its one node has no inbound layers, its output is the symbolic input.

    Args:
        shape: the shape of one row, None where unknown.
        batch_size: the batch size, None where unknown.
        dtype: the dtype of the data; default `fanin.config.floatx()`.
        batch_shape: the shape with the batch, instead of `shape` and `batch_size`.
        name: default "input_layer", made unique.
        sparse, ragged, optional: Keras writes them into files; only False is taken.
    """

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: bool | None = None,
        batch_shape: Any = None,
        input_tensor: Any = None,
        optional: bool = False,
        name: str | None = None,
        ragged: bool | None = None,
        **kwargs: Any,
    ):
        if input_tensor is not None or sparse or ragged or optional:
            raise ValueError("Input: input_tensor, sparse, ragged and optional inputs do not exist here.")
        shape = kwargs.pop("input_shape", shape)
        batch_shape = kwargs.pop("batch_input_shape", batch_shape)
        kwargs.pop("trainable", None)
        super().__init__(name=name, **kwargs)
        if shape is not None and batch_shape is not None:
            raise ValueError(f"Input: give shape={shape!r} or batch_shape={batch_shape!r}, not both.")
        if shape is None and batch_shape is None:
            raise ValueError("Input: give a shape, such as shape=(784,).")
        if batch_shape is None:
            batch_shape = (batch_size, *shape_tuple(shape, "Input: shape"))
        elif batch_size is not None:
            raise ValueError(f"Input: batch_shape={batch_shape!r} already says the batch size, found batch_size too.")
        self.batch_shape = shape_tuple(batch_shape, "Input: batch_shape")
        self._input_dtype = self.dtype_policy.compute if dtype is None else as_dtype(dtype)
        self.built = True
        self.__dict__["_scope"] = self.name
        input_symbol(self, self.batch_shape, self._input_dtype)

    @property
    def dtype(self) -> str:
        """The name of the dtype of the data."""
        return dtype_name(self._input_dtype)

    @pure
    def call(self, inputs: Any) -> Any:
        """The input itself."""
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape itself."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {"batch_shape": list(self.batch_shape), "dtype": self.dtype, "sparse": False, "ragged": False,
                "name": self.name}  # fmt: skip


def Input(  # noqa: N802 - Keras's name
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    name: str | None = None,
    batch_shape: Any = None,
    **kwargs: Any,
) -> SymbolicTensor:
    """A symbolic tensor to call layers on.

    Args:
        shape: the shape of one row, None where unknown: (784,).
        batch_size: the batch size, None where unknown.
        dtype: the dtype of the data; default `fanin.config.floatx()`.
        name: the name of its layer; default "input_layer", made unique.
        batch_shape: the shape with the batch, instead of `shape` and `batch_size`.

    Raises ValueError for both or neither of `shape` and `batch_shape`, and for an unknown argument.

    >>> Input((784,)).shape
    (None, 784)
    """
    try:
        layer = InputLayer(
            shape=shape, batch_size=batch_size, dtype=dtype, name=name, batch_shape=batch_shape, **kwargs
        )
    except TypeError as error:
        raise ValueError(f"Input: {error}") from None
    return layer.inbound_nodes[0].symbol(0)
