"""The symbolic tensor: a shape and a dtype that records what is done with it.

It is a plain class, no Tensor subclass: torch's own `__torch_function__` protocol brings every torch function and
operator here, and each becomes a node of the graph. It has no values, so it can decide no `if`.

Who holds whom, so that a dropped model is freed at once: a symbol holds its node and its layer; a layer holds its
inbound nodes; a node holds its inputs, but its layer and its outputs only weakly.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from fanin.dtypes import dtype_name
from fanin.errors import SymbolicValueError
from fanin.graph.tree import leaves

if TYPE_CHECKING:
    from fanin.graph.node import Node

Shape = tuple[int | None, ...]


class SymbolicTensor:
    """A tensor without values: what `fanin.Input` and layers called on symbolic tensors return.

    Attributes:
        shape: a tuple of ints, None where unknown: (None, 784).
        dtype: the torch dtype.
        name: a name for display.
        node: the call that produced it.
        layer: the layer, or recorded function, of that call.
        mask: the symbolic mask that goes with it, or None.

    Two symbolic tensors are equal only if they are the same object; `x == 0` and `x == tensor` are recorded.
    """

    __slots__ = ("__weakref__", "dtype", "index", "layer", "name", "node", "shape")
    __array_ufunc__ = None  # numpy arrays hand operators over instead of making object arrays

    def __init__(self, shape: Shape, dtype: torch.dtype, name: str, layer: Any, node: Node, index: int):
        self.shape = shape
        self.dtype = dtype
        self.name = name
        self.layer = layer
        self.node = node
        self.index = index

    @property
    def _keras_history(self) -> tuple[Any, int, int]:
        """(layer, index of the node among the layer's, index of the tensor among the node's outputs)."""
        return self.layer, self.node.index, self.index

    @property
    def mask(self) -> SymbolicTensor | None:
        """The symbolic mask that the producing layer computed, or None."""
        masks = self.node.output_masks
        return masks[self.index] if self.index < len(masks) else None

    @property
    def _keras_mask(self) -> SymbolicTensor | None:
        """The mask under Keras's name, as tensors carry it."""
        return self.mask

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def size(self, dim: int | None = None) -> Shape | int | None:
        """The shape, or one entry of it; None where unknown."""
        return self.shape if dim is None else self.shape[dim]

    def is_floating_point(self) -> bool:
        """Whether the dtype is a float."""
        return self.dtype.is_floating_point

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return symbols_in((args, kwargs))[0]._record(function, *args, **(kwargs or {}))

    def _record(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Make a node of a torch function and its arguments, this tensor among them."""
        return self.node.record(function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        method = getattr(torch.Tensor, name, None)
        if name.startswith("_") or method is None:
            raise AttributeError(f"A symbolic tensor has no attribute {name!r}: it stands for values that come later.")
        if callable(method):
            return lambda *args, **kwargs: self._record(method, self, *args, **kwargs)
        return self._record(getattr, self, name)

    def __getitem__(self, key: Any) -> Any:
        return self._record(operator.getitem, self, key)

    def __eq__(self, other: object) -> Any:
        return self._record(torch.eq, self, other) if _is_value(other) else self is other

    def __ne__(self, other: object) -> Any:
        return self._record(torch.ne, self, other) if _is_value(other) else self is not other

    __hash__ = object.__hash__

    def _no_value(self, use: str) -> NoReturn:
        raise SymbolicValueError(
            f"{self!r} has no values yet, so it cannot {use}. Use torch.where(condition, a, b) to choose between "
            "tensors, or move the code into the `call` method of a fanin.layers.Layer, which sees real values."
        )

    def __bool__(self) -> NoReturn:  # noqa: PLE0304
        self._no_value("decide a Python `if` or `while`")

    def __float__(self) -> NoReturn:
        self._no_value("become a float")

    def __int__(self) -> NoReturn:
        self._no_value("become an int")

    def __index__(self) -> NoReturn:  # noqa: PLE0305
        self._no_value("serve as an index")

    def __len__(self) -> int:
        if not self.shape or self.shape[0] is None:
            self._no_value("tell its length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        self._no_value("be iterated over (torch.unbind gives its parts)")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._no_value("become a numpy array")

    def __repr__(self) -> str:
        return f"<SymbolicTensor {self.name!r} shape={self.shape} dtype={dtype_name(self.dtype)}>"


def _is_value(other: object) -> bool:
    return isinstance(other, (int, float, torch.Tensor))


def _operator(name: str, reverse: bool) -> Callable[..., Any]:
    function = getattr(torch, name)

    def method(self: SymbolicTensor, other: Any) -> Any:
        return self._record(function, other, self) if reverse else self._record(function, self, other)

    return method


def _unary(name: str) -> Callable[..., Any]:
    function = getattr(torch, name)
    return lambda self: self._record(function, self)


_BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "pow", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor",
}  # fmt: skip
for _name, _function in _BINARY.items():
    setattr(SymbolicTensor, f"__{_name}__", _operator(_function, reverse=False))
    setattr(SymbolicTensor, f"__r{_name}__", _operator(_function, reverse=True))
for _name, _function in {"lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}.items():
    setattr(SymbolicTensor, f"__{_name}__", _operator(_function, reverse=False))
for _name, _function in {"neg": "neg", "abs": "abs", "invert": "bitwise_not"}.items():
    setattr(SymbolicTensor, f"__{_name}__", _unary(_function))


def is_symbolic(value: Any) -> bool:
    """Whether a symbolic tensor is anywhere in a nested structure."""
    return any(isinstance(leaf, SymbolicTensor) for leaf in leaves(value))


def is_keras_tensor(x: Any) -> bool:
    """Whether `x` is itself a symbolic tensor: what `fanin.Input` and layers called on it return."""
    return isinstance(x, SymbolicTensor)


def symbols_in(value: Any) -> list[SymbolicTensor]:
    """All symbolic tensors of a nested structure, from left to right."""
    return [leaf for leaf in leaves(value) if isinstance(leaf, SymbolicTensor)]
