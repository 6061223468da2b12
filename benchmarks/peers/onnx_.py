"""ONNX Runtime on a file of Gemm and Relu nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.cases import Case, weights


def model_bytes(case: Case) -> bytes:
    """The model as an ONNX file in float32, its batch free: "x" (B, I) -> "y" (B, U)."""
    nodes, constants, value = [], [], "x"
    pairs = weights(case)
    for number, (kernel, bias) in enumerate(pairs):
        constants += [numpy_helper.from_array(kernel, f"w{number}"), numpy_helper.from_array(bias, f"b{number}")]
        last = number + 1 == len(pairs)
        result = "y" if last else f"sum{number}"
        nodes.append(helper.make_node("Gemm", [value, f"w{number}", f"b{number}"], [result]))
        if not last:
            value = f"relu{number}"
            nodes.append(helper.make_node("Relu", [result], [value]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("x", case.widths[0]), ("y", case.widths[-1]))
    ]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    written: bytes = made.SerializeToString()
    return written


def predict(case: Case) -> Callable[[Any], Any]:
    """A session with its default options."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model_bytes(case), providers=["CPUExecutionProvider"])
    return lambda rows: session.run(None, {"x": rows})[0]
