"""The torch functions that files may name, and recorded calls as files have them.

A file names a function by where it is, {"module": "torch.nn.functional", "class_name": "mish"}, and only the names of
this list are found. They are pure functions of tensors: none draws random numbers, changes a tensor, makes as many
tensors as a number in the file says, reads or writes files, or runs code.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fanin.dtypes import as_dtype
from fanin.errors import MismatchError, UnsafeError
from fanin.graph.node import FunctionCall
from fanin.graph.tree import tree_map
from fanin.registry import Family

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

SPACES: dict[str, Any] = {
    "torch": torch,
    "torch.Tensor": torch.Tensor,
    "torch.nn.functional": functional,
    "torch.linalg": torch.linalg,
    "operator": operator,
}
_BOTH = """
    abs absolute acos acosh add addcdiv addcmul addmm addmv addr all amax amin any arccos arccosh arcsin arcsinh arctan
    arctan2 arctanh argmax argmin argsort asin asinh atan atan2 atanh baddbmm bitwise_and bitwise_not bitwise_or
    bitwise_xor bmm broadcast_to ceil clamp clamp_max clamp_min clip clone copysign cos cosh count_nonzero cumprod
    cumsum deg2rad detach diag diagonal div divide dot eq erf erfc erfinv exp exp2 expm1 fix flatten flip fliplr flipud
    float_power floor floor_divide fmax fmin fmod frac gather ge greater greater_equal gt heaviside hypot index_select
    isclose isfinite isinf isnan kron le lerp less less_equal lgamma log log10 log1p log2 log_softmax logaddexp
    logaddexp2 logcumsumexp logical_and logical_not logical_or logical_xor logit logsumexp lt masked_fill matmul max
    maximum mean median min minimum mm moveaxis movedim mul multiply mv nan_to_num nanmean nanmedian nansum narrow ne
    neg negative norm not_equal outer permute positive pow prelu prod quantile rad2deg ravel reciprocal relu remainder
    repeat_interleave reshape roll round rsqrt select sgn sigmoid sign signbit sin sinc sinh softmax sort sqrt
    square squeeze std sub subtract sum swapaxes swapdims t take take_along_dim tan tanh tile topk transpose tril triu
    true_divide trunc unflatten unsqueeze var where xlogy
"""
_LISTS = {
    "torch": _BOTH
    + """
    broadcast_tensors cat cdist celu column_stack concat concatenate dstack einsum full_like hstack layer_norm ones_like
    rms_norm rsub selu stack std_mean tensordot var_mean vstack zeros_like
    """,
    "torch.Tensor": _BOTH
    + """
    __and__ __floordiv__ __getitem__ __or__ __pow__ __xor__ contiguous expand expand_as repeat reshape_as view_as
    """,
    "torch.nn.functional": """
    bilinear celu cosine_similarity elu gelu glu group_norm hardshrink hardsigmoid hardswish hardtanh layer_norm
    leaky_relu linear log_softmax logsigmoid mish normalize pad pairwise_distance prelu relu relu6 rms_norm selu silu
    softmax softmin softplus softshrink softsign tanhshrink threshold
    """,
    "torch.linalg": "matrix_norm multi_dot norm vector_norm",
    "operator": "getitem",
}
_NO_OPTIONS = ("device", "generator", "inplace", "layout", "out", "pin_memory", "requires_grad")


class StoredCall(FunctionCall):
    """A function as a file names it.

    Attributes:
        adapt: from the arguments in the file to those of the function.
    """

    __slots__ = ("adapt",)

    def __init__(self, function: Callable[..., Any], name: str, adapt: Callable[..., Arguments]):
        super().__init__(function, name)
        self.adapt = adapt


class TorchFunction:
    """One entry of the list: a function, and the module and name by which files know it."""

    def __init__(self, module: str, name: str):
        self.module, self.__name__ = module, name
        self.function = getattr(SPACES[module], name)

    def from_config(self, config: Mapping[str, Any]) -> StoredCall:
        """The call of that name."""
        return StoredCall(self.function, str(config.get("name", self.__name__)), self._adapt)

    def _adapt(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        args, kwargs = with_numbers((args, kwargs))
        if self.__name__ in ("getitem", "__getitem__") and len(args) == 2 and isinstance(args[1], list):
            args = args[0], tuple(args[1])
        if isinstance(kwargs.get("dtype"), str):
            kwargs["dtype"] = as_dtype(kwargs["dtype"])
        fault = _fault(self.function, args, kwargs)
        if fault:
            raise UnsafeError(f"{self.module}.{self.__name__} is called with {fault}, which files may not ask for.")
        return args, kwargs


functions: Family[Any] = Family("torch function", "torch")
_entries: dict[Callable[..., Any], TorchFunction] = {}
for _module, _names in _LISTS.items():
    for _name in filter(partial(hasattr, SPACES[_module]), _names.split()):
        _entry = TorchFunction(_module, _name)
        functions.add(_entry, module=_module)
        _entries.setdefault(_entry.function, _entry)


def describe_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[TorchFunction, Arguments]:
    """The entry of a function on the list, and its arguments as files have them.

    ValueError for a function that is not on the list, and for arguments that ask for another device or a change.
    """
    entry = _entries.get(function)
    if entry is None:
        raise ValueError(f"{_shown(function)} is not one of the torch functions that files may name. {_WAY_OUT}")
    kwargs = {key: value for key, value in kwargs.items() if key != "_stacklevel" and value is not None}
    fault = _fault(function, args, kwargs)
    if fault:
        raise ValueError(f"{_shown(function)} with {fault} cannot be saved. {_WAY_OUT}")
    if entry.__name__ in ("getitem", "__getitem__"):
        args = args[0], [*args[1]] if isinstance(args[1], tuple) else [args[1]]
    return entry, (args, {key: value for key, value in kwargs.items() if key != "inplace"})


_WAY_OUT = (
    "Put the call into the `call` method of a fanin.layers.Layer of your own, registered with "
    "@fanin.saving.register_keras_serializable()."
)


def _fault(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """An option of the call that is about anything but values: "a value for inplace", or ""."""
    given = dict(kwargs)
    if inspect.isfunction(function):  # it may take them by position
        try:
            given = inspect.signature(function).bind(*args, **kwargs).arguments
        except TypeError as error:
            raise MismatchError(f"{_shown(function)}: {error}") from None
    found = [name for name in _NO_OPTIONS if given.get(name) is not None and given[name] is not False]
    return f"a value for {found[0]!r}" if found else ""


def _shown(function: Any) -> str:
    """The qualified name: "torch.fft.fft"."""
    return str(torch.overrides.resolve_name(function) or getattr(function, "__name__", type(function).__name__))


# --- numbers that JSON lacks ------------------------------------------------------------------------------------------


def without_infinities(arguments: Any) -> Any:
    """Arguments whose infinite and NaN numbers are in Keras's form of arrays, as text, which numpy reads as numbers."""
    return tree_map(_as_text, arguments)


def _as_text(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
        if leaf.dtype == torch.bfloat16:
            raise ValueError(f"a bfloat16 tensor with infinite numbers has no form in files. {_WAY_OUT}")
        array = leaf.numpy(force=True)
        return _array(array.astype(str).tolist(), array.dtype.name)
    if isinstance(leaf, float) and not np.isfinite(leaf):
        return _array(str(leaf), "float16")  # the narrowest: it widens no other number
    return leaf


def _array(value: Any, dtype: str) -> dict[str, Any]:
    return {"class_name": "__numpy__", "config": {"value": value, "dtype": dtype}}


def with_numbers(arguments: Any) -> Any:
    """Arguments whose arrays without axes are plain numbers again."""
    return tree_map(lambda leaf: leaf.item() if isinstance(leaf, np.ndarray) and leaf.ndim == 0 else leaf, arguments)
