"""OpenVINO on the same file as ONNX Runtime, in the precision of the case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openvino

from benchmarks.cases import Case
from benchmarks.peers.onnx_ import model_bytes


def predict(case: Case) -> Callable[[Any], Any]:
    """One request used again: the rows are read where they are, the result is a new array."""
    core = openvino.Core()
    precision = "bf16" if case.dtype == "bfloat16" else "f32"
    compiled = core.compile_model(core.read_model(model_bytes(case)), "CPU", {"INFERENCE_PRECISION_HINT": precision})
    request = compiled.create_infer_request()
    return lambda rows: request.infer([rows], share_inputs=True)[0]
