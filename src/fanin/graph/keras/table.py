"""The operations of Keras that files may name. Where integers come out, they are of 64 bits here, of 32 in Keras."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.nn import functional

from fanin import activations
from fanin.dtypes import as_dtype
from fanin.errors import MismatchError
from fanin.graph.functions import Arguments
from fanin.graph.keras import functions
from fanin.graph.keras.operation import NEEDED, Adapt, row
from fanin.graph.tree import as_list


def _one_axis(args: tuple[Any, ...], options: dict[str, Any]) -> Arguments:
    """torch takes one axis here, by its number."""
    dim = options.get("dim")
    if isinstance(dim, list):
        if len(dim) != 1:
            raise MismatchError(f"one axis is expected, found {dim}.")
        options["dim"] = dim[0]
    return args, options


def _with(**more: Any) -> Adapt:
    return lambda args, options: (args, {**options, **more})


def _as_list(args: tuple[Any, ...], options: dict[str, Any]) -> Arguments:
    return args, {key: as_list(value) for key, value in options.items()}


def _as_dtype(args: tuple[Any, ...], options: dict[str, Any]) -> Arguments:
    return args, {key: as_dtype(value) if key == "dtype" else value for key, value in options.items()}


def _with_key(args: tuple[Any, ...], options: dict[str, Any]) -> Arguments:
    return (args[0], tuple(args[1]) if isinstance(args[1], list) else args[1]), options


def _with_widths(args: tuple[Any, ...], options: dict[str, Any]) -> Arguments:
    """torch counts axes from the last. Its other modes than "constant" are not Keras's."""
    if "mode" in options:
        raise MismatchError(f"Keras's operation Pad is known with mode 'constant', found {options['mode']!r}.")
    return args, {**options, "pad": [width for pair in reversed(options["pad"]) for width in pair]}


BOTH = "input other"

row("ops.numpy.Absolute", "abs absolute")
row("ops.numpy.Arccos", "acos arccos")
row("ops.numpy.Arccosh", "acosh arccosh")
row("ops.numpy.Arcsin", "asin arcsin")
row("ops.numpy.Arcsinh", "asinh arcsinh")
row("ops.numpy.Arctan", "atan arctan")
row("ops.numpy.Arctanh", "atanh arctanh")
row("ops.numpy.Ceil", "ceil")
row("ops.numpy.Copy", "clone contiguous")
row("ops.numpy.Cos", "cos")
row("ops.numpy.Cosh", "cosh")
row("ops.numpy.Exp", "exp")
row("ops.numpy.Expm1", "expm1")
row("ops.numpy.Floor", "floor")
row("ops.numpy.Isfinite", "isfinite")
row("ops.numpy.Isinf", "isinf")
row("ops.numpy.Isnan", "isnan")
row("ops.numpy.Log", "log")
row("ops.numpy.Log10", "log10")
row("ops.numpy.Log1p", "log1p")
row("ops.numpy.Log2", "log2")
row("ops.numpy.LogicalNot", "logical_not")
row("ops.numpy.Negative", "neg negative")
row("ops.numpy.Ravel", "ravel")
row("ops.numpy.Reciprocal", "reciprocal")
row("ops.numpy.Round", "round", decimals=("decimals", 0))
row("ops.numpy.Sign", "sign sgn")
row("ops.numpy.Sin", "sin")
row("ops.numpy.Sinh", "sinh")
row("ops.numpy.Sqrt", "sqrt")
row("ops.numpy.Square", "square")
row("ops.numpy.Tan", "tan")
row("ops.numpy.Tanh", "tanh")
row("ops.numpy.Trunc", "trunc fix")
row("ops.math.Erf", "erf")
row("ops.math.Erfinv", "erfinv")
row("ops.math.Rsqrt", "rsqrt")
row("ops.core.StopGradient", "detach")

row("ops.numpy.Add", "add", BOTH)
row("ops.numpy.Arctan2", "atan2 arctan2", BOTH)
row("ops.numpy.Divide", "", BOTH, torch.true_divide)
row("ops.numpy.DivideNoNan", "", BOTH, functions.divide_no_nan)
row("ops.numpy.TrueDivide", "true_divide divide div", BOTH)
row("ops.numpy.Equal", "eq", BOTH)
row("ops.numpy.FloorDivide", "floor_divide __floordiv__", BOTH)
row("ops.numpy.Greater", "gt greater", BOTH)
row("ops.numpy.GreaterEqual", "ge greater_equal", BOTH)
row("ops.numpy.Hypot", "hypot", BOTH)
row("ops.numpy.Less", "lt less", BOTH)
row("ops.numpy.LessEqual", "le less_equal", BOTH)
row("ops.numpy.Logaddexp", "logaddexp", BOTH)
row("ops.numpy.LogicalAnd", "logical_and", BOTH)
row("ops.numpy.LogicalOr", "logical_or", BOTH)
row("ops.numpy.LogicalXor", "logical_xor", BOTH)
row("ops.numpy.Matmul", "matmul mm bmm mv", BOTH)
row("ops.numpy.Maximum", "maximum", BOTH, functions.maximum)
row("ops.numpy.Minimum", "minimum", BOTH, functions.minimum)
row("ops.numpy.Mod", "remainder", BOTH)
row("ops.numpy.Multiply", "mul multiply", BOTH)
row("ops.numpy.NotEqual", "ne not_equal", BOTH)
row("ops.numpy.Power", "pow __pow__", "input exponent")
row("ops.numpy.Subtract", "sub subtract", BOTH)

row("ops.nn.Celu", "celu", alpha=("alpha", 1.0))
row("ops.nn.Elu", "elu", alpha=("alpha", 1.0))
row("ops.nn.Gelu", function=activations.gelu, approximate=("approximate", True, False))
row("ops.nn.Glu", "glu", axis=("dim", -1))
row("ops.nn.HardShrink", "hardshrink", threshold=("lambd", 0.5))
row("ops.nn.HardSigmoid", "hardsigmoid")
row("ops.nn.HardSilu", "hardswish")
row("ops.nn.HardTanh", "", function=functional.hardtanh)
row("ops.nn.LeakyRelu", "leaky_relu", negative_slope=("negative_slope", 0.2, 0.01))
row("ops.nn.LogSigmoid", "logsigmoid")
row("ops.nn.LogSoftmax", "log_softmax", adapt=_one_axis, axis=("dim", -1, NEEDED))
row("ops.nn.Normalize", "normalize", order=("p", 2, 2.0), axis=("dim", -1, 1), epsilon=("eps", 1e-7, 1e-12))
row("ops.nn.OneHot", function=functions.one_hot, num_classes="num_classes", axis=("axis", -1),
    dtype=("dtype", None))  # fmt: skip
row("ops.nn.Relu", "relu")
row("ops.nn.Relu6", "relu6")
row("ops.nn.Selu", "selu")
row("ops.nn.Sigmoid", "sigmoid")
row("ops.nn.Silu", "silu")
row("ops.nn.SoftShrink", "softshrink", threshold=("lambd", 0.5))
row("ops.nn.Softmax", "softmax", adapt=_one_axis, axis=("dim", -1, NEEDED))
row("ops.nn.Softplus", "softplus")
row("ops.nn.Softsign", "softsign")
row("ops.nn.Sparsemax", function=activations.sparsemax, axis=("axis", -1))
row("ops.nn.SparsePlus", function=activations.sparse_plus)
row("ops.nn.SparseSigmoid", function=activations.sparse_sigmoid)
row("ops.nn.Squareplus", function=activations.squareplus, b=("b", 4))
row("ops.nn.TanhShrink", "tanhshrink")
row("ops.nn.Threshold", "threshold", threshold="threshold", default_value="value")
row("activations.activations.Mish", "mish")
row("activations.activations.ReLU", function=activations.relu, negative_slope=("negative_slope", 0.0),
    max_value=("max_value", None), threshold=("threshold", 0.0))  # fmt: skip

_REDUCED: Any = {"axis": ("dim", None), "keepdims": ("keepdim", False)}
row("ops.numpy.All", "all", **_REDUCED)
row("ops.numpy.Any", "any", **_REDUCED)
row("ops.numpy.Argmax", "argmax", adapt=_one_axis, **_REDUCED)
row("ops.numpy.Argmin", "argmin", adapt=_one_axis, **_REDUCED)
row("ops.numpy.CountNonzero", "count_nonzero", axis=("dim", None))
row("ops.numpy.Max", "amax", **_REDUCED)
row("ops.numpy.Mean", "mean", **_REDUCED)
row("ops.numpy.Min", "amin", **_REDUCED)
row("ops.numpy.Amax", function=torch.amax, **_REDUCED)
row("ops.numpy.Amin", function=torch.amin, **_REDUCED)
row("ops.numpy.Prod", "prod", adapt=_one_axis, **_REDUCED)
row("ops.numpy.Std", function=torch.std, adapt=_with(correction=0), **_REDUCED)
row("ops.numpy.Sum", "sum", **_REDUCED)
row("ops.numpy.Var", function=torch.var, adapt=_with(correction=0), **_REDUCED)
row("ops.math.Logsumexp", "logsumexp", axis=("dim", None, NEEDED), keepdims=("keepdim", False))
row("ops.linalg.Norm", function=torch.linalg.norm, ord=("ord", None), **_REDUCED)

row("ops.core.Cast", function=torch.Tensor.to, adapt=_as_dtype, dtype="dtype")
row("ops.core.Unstack", function=functions.unstack, num=("num", None), axis=("axis", 0))
row("ops.math.TopK", function=torch.topk, k="k", sorted=("sorted", True))
row("ops.numpy.Argsort", function=torch.argsort, adapt=_with(stable=True), axis=("dim", -1))
row("ops.numpy.BroadcastTo", "broadcast_to", shape="size")
row("ops.numpy.Clip", function=torch.clamp, x_min="min", x_max="max")
row("ops.numpy.Concatenate", "cat concat concatenate", "tensors", axis=("dim", 0))
row("ops.numpy.Cumsum", "cumsum", adapt=_one_axis, axis=("dim", None, NEEDED))
row("ops.numpy.Einsum", function=torch.einsum, inputs="*", subscripts="equation",
    adapt=lambda args, options: ((options["equation"], *args), {}))  # fmt: skip
row("ops.numpy.ExpandDims", "unsqueeze", adapt=_one_axis, axis="dim")
row("ops.numpy.Flip", function=functions.flip, axis=("axis", None))
row("ops.numpy.FullLike", "full_like", "input fill_value", adapt=_as_dtype, dtype=("dtype", None))
row("ops.numpy.GetItem", function=operator.getitem, inputs="input key", adapt=_with_key)
row("ops.numpy.Hstack", "hstack", "tensors")
row("ops.numpy.Moveaxis", "movedim moveaxis", source="source", destination="destination")
row("ops.numpy.NanToNum", "nan_to_num", nan=("nan", 0.0), posinf=("posinf", None), neginf=("neginf", None))
row("ops.numpy.OnesLike", "ones_like", adapt=_as_dtype, dtype=("dtype", None))
row("ops.numpy.Pad", function=functional.pad, adapt=_with_widths, pad_width="pad", mode=("mode", "constant"),
    constant_values=("value", None))  # fmt: skip
row("ops.numpy.Repeat", function=torch.repeat_interleave, repeats="repeats", axis=("dim", None))
row("ops.numpy.Reshape", function=torch.reshape, adapt=_as_list, newshape="shape")
row("ops.numpy.Roll", "roll", shift="shifts", axis=("dims", None))
row("ops.numpy.Sort", function=functions.sort, axis=("axis", -1))
row("ops.numpy.Split", function=functions.split, indices_or_sections="indices_or_sections", axis=("axis", 0))
row("ops.numpy.Squeeze", function=torch.squeeze, axis=("dim", None))
row("ops.numpy.Stack", "stack", "tensors", axis=("dim", 0))
row("ops.numpy.Swapaxes", "swapaxes swapdims transpose", axis1="axis0", axis2="axis1")
row("ops.numpy.Take", function=functions.take, inputs="input indices", axis="axis")
row("ops.numpy.TakeAlongAxis", function=functions.take_along_axis, inputs="input indices", axis="axis")
row("ops.numpy.Tile", function=torch.tile, adapt=_as_list, repeats="dims")
row("ops.numpy.Transpose", function=functions.transpose, axes=("axes", None))
row("ops.numpy.Vstack", "vstack", "tensors")
row("ops.numpy.Where", function=functions.where, inputs="condition x1 x2")
row("ops.numpy.ZerosLike", "zeros_like", adapt=_as_dtype, dtype=("dtype", None))
