"""The same programs compiled by PyTorch's inductor, for `jit_compile=True`: needs a C++ compiler, and seconds each."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fanin.errors import NotTraceableError
from fanin.program.decompositions import PLAIN_UPDATES
from fanin.program.trace import trace


class InductorProgram:
    """A function of tensors as `Program` takes it, its graph handed to inductor.

    Args:
        function, static, inputs: see `Program`.

    The constructor raises NotTraceableError for layers that draw random numbers by a seed of their own.
    """

    def __init__(self, function: Callable[..., Sequence[Any]], static: Sequence[Tensor], inputs: Sequence[Tensor]):
        # Inductor loses what is written to a float64 scalar in memory: it gets one number in a row instead.
        rows = [one.view(1) if one.dim() == 0 and not one.requires_grad else one for one in static]

        def on_rows(*given: Tensor) -> Sequence[Any]:
            own = [fake.view(one.shape) if one.dim() == 0 else fake for fake, one in zip(given, static, strict=False)]
            return function(*own, *given[len(own) :])

        traced = trace(on_rows, rows, inputs, PLAIN_UPDATES)
        constants = {str(node.target): value for node, value in traced.static.items() if node.op == "get_attr"}
        if any(isinstance(value, torch.Generator) for value in constants.values()):
            raise NotTraceableError("jit_compile=True: inductor draws no random numbers for a layer with a seed")
        self.traced, self.captured = traced, traced.captured
        module = fx.GraphModule(constants, traced.graph)
        self._static = [value.detach() for node, value in traced.static.items() if node.op == "placeholder"]
        # In one piece: between two, what is written to such a number would be lost as well.
        self._run = torch.compile(module, dynamic=False, fullgraph=True)
        self._lock = threading.Lock()
        self.results = [node.meta["val"] for node in traced.outputs if node is not None]

    def new_results(self) -> list[Tensor]:
        """As `Program.new_results`."""
        return [torch.empty(value.shape, dtype=value.dtype, device=value.device) for value in self.results]

    def view_inputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """As `Program.look`: the inputs."""
        return list(inputs)

    def run_on(self, views: list[Tensor], results: Sequence[Tensor]) -> None:
        """As `Program.run_on`. NotTraceableError where inductor cannot compile it."""
        with self._lock, torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
            try:
                found = [value for value in self._run(*self._static, *views) if value is not None]
            except torch._dynamo.exc.TorchDynamoException as error:  # it compiles at the first run, before it computes
                raise NotTraceableError(f"jit_compile=True: inductor fails: {str(error).strip()}") from error
            for result, value in zip(results, found, strict=True):
                result.copy_(value)
