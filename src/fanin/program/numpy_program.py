"""A small program as calls of numpy on the memory of its tensors: for a few rows, the overhead of torch costs the most.

A call of torch takes about 3 microseconds besides the arithmetic, one of numpy 0.5. Measured on an AMD EPYC: one row of
784-128-128-10 takes 10 microseconds by numpy, and 21 by torch; 32 rows of 16-16-4 take 4 and 13. Only
for products that numpy's BLAS computes in one thread: two pools of threads that wait for each other's cores can take
milliseconds for a product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from fanin.program.effects import aten, is_view
from fanin.program.matmul import ADDMM_RELU, PRODUCTS, multiplications
from fanin.program.numpy_warnings import NAMES, without_warnings
from fanin.program.trace import Traced

_LARGEST_PRODUCT = 2**19  # multiplications

Array = np.ndarray[Any, np.dtype[np.float32]]

# operation -> its lines; {v} is the new array, {0}, {1}, ... are the tensors among the arguments.
_LINES: dict[Any, tuple[str, ...]] = {
    aten.mm.default: ("{v} = dot({0}, {1})",),
    aten.addmm.default: ("{v} = dot({1}, {2})", "add({v}, {0}, {v})"),
    ADDMM_RELU: ("{v} = dot({1}, {2})", "add({v}, {0}, {v})", "maximum({v}, zero, out={v})"),
    aten.relu.default: ("{v} = maximum({0}, zero)",),
    aten.tanh.default: ("{v} = tanh({0})",),
    aten.sigmoid.default: ("{v} = one / (one + exp(negative({0})))",),
    aten._softmax.default: (
        "{v} = exp({0} - largest({0}, -1, None, None, True))",
        "divide({v}, total({v}, -1, None, None, True), {v})",
    ),
}
_BOUND = {
    "dot": np.dot, "add": np.add, "maximum": np.maximum, "tanh": np.tanh, "exp": np.exp, "negative": np.negative,
    "divide": np.divide, "largest": np.maximum.reduce, "total": np.add.reduce,
    "zero": np.zeros((), np.float32), "one": np.ones((), np.float32),
}  # fmt: skip


def array_function(traced: Traced) -> tuple[Callable[[Array], list[Array]], str] | None:
    """(function, source): the program as array -> new arrays, for an array of the input's shape.

    None for a program with several inputs, or with anything but small products and simple activations in float32 on the
    CPU.
    """
    if len(traced.inputs) != 1:
        return None
    bound: dict[str, Any] = {**NAMES, **_BOUND}
    names: dict[fx.Node, str] = {traced.inputs[0]: "x"}
    known: dict[fx.Node, Tensor] = {}
    lines: list[str] = []

    def name(node: Any) -> str | None:
        if node in known and node not in names:
            names[node] = f"w{len(names)}"
            bound[names[node]] = known[node].detach().numpy()
        return names.get(node)

    for node in traced.graph.nodes:
        value = node.meta.get("val")
        if node.op == "output":
            break
        if node in traced.static:
            known[node] = traced.static[node]
        elif node.op == "call_function" and is_view(node) and node.args[0] in known:
            with torch.no_grad():
                known[node] = node.target(known[node.args[0]], *node.args[1:], **node.kwargs)
        elif node.op == "call_function":
            if node.target not in _LINES or not _is_float32(value) or not _is_supported(node):
                return None
            arguments = [name(one) for one in node.all_input_nodes]
            if None in arguments or not all(_is_float32(one.meta["val"]) for one in node.all_input_nodes):
                return None
            names[node] = f"v{len(names)}"
            lines += [line.format(*arguments, v=names[node]) for line in _LINES[node.target]]
    outputs = [names.get(node, "") if node is not None else "" for node in traced.outputs]
    if not all(name.startswith("v") for name in outputs) or len(set(outputs)) < len(outputs):
        return None
    lines.append(f"return [{', '.join(outputs)}]")
    source = "def run(x):" + "".join(f"\n    {line}" for line in without_warnings(lines))
    exec(compile(source, "<fanin arrays>", "exec"), bound)  # generated above, from a table
    return bound.pop("run"), source


def as_array(tensor: Tensor) -> Any:
    """The memory of a tensor as an array, also if the tensor requires a gradient."""
    try:
        return tensor.numpy()
    except RuntimeError:
        return tensor.numpy(force=True)


def _is_supported(node: fx.Node) -> bool:
    """Whether a product is small, and whether arguments other than tensors have the values that `_LINES` assumes."""
    if node.target in PRODUCTS and multiplications(node) > _LARGEST_PRODUCT:
        return False
    if node.target == aten._softmax.default:
        return node.args[1] in (-1, node.meta["val"].dim() - 1) and not node.args[2]
    return not node.kwargs and all(isinstance(one, fx.Node) for one in node.args)


def _is_float32(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32 and value.device.type == "cpu"
