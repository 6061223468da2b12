"""Programs compiled by PyTorch's inductor, for `jit_compile=True`: each takes seconds, and needs a C++ compiler."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fanin.errors import NotTraceableError
from fanin.program.decompositions import UPDATES
from fanin.program.trace import trace


class InductorProgram:
    """As `Program`, with the graph compiled by inductor instead of fanin's passes.

    Args:
        function, static, inputs: see `Program`.

    The constructor raises NotTraceableError for layers that draw random numbers by a seed of their own.
    """

    def __init__(self, function: Callable[..., Sequence[Any]], static: Sequence[Tensor], inputs: Sequence[Tensor]):
        # Inductor loses mutations of 0-dim float64 tensors: it gets tensors of shape (1,) instead.
        vectors = [one.view(1) if one.dim() == 0 and not one.requires_grad else one for one in static]

        def on_vectors(*arguments: Tensor) -> Sequence[Any]:
            own = [
                fake.view(one.shape) if one.dim() == 0 else fake for fake, one in zip(arguments, static, strict=False)
            ]
            return function(*own, *arguments[len(own) :])

        traced = trace(on_vectors, vectors, inputs, UPDATES)
        constants = {str(node.target): value for node, value in traced.static.items() if node.op == "get_attr"}
        if any(isinstance(value, torch.Generator) for value in constants.values()):
            raise NotTraceableError("jit_compile=True: inductor draws no random numbers for a layer with a seed")
        self.traced, self.captured = traced, traced.captured
        module = fx.GraphModule(constants, traced.graph)
        self._static = [value.detach() for node, value in traced.static.items() if node.op == "placeholder"]
        # fullgraph: a graph break would lose mutations of such tensors as well.
        self._run = torch.compile(module, dynamic=False, fullgraph=True)
        self._lock = threading.Lock()
        self.results = [node.meta["val"] for node in traced.outputs if node is not None]

    def new_results(self) -> list[Tensor]:
        """As `Program.new_results`."""
        return [torch.empty(value.shape, dtype=value.dtype, device=value.device) for value in self.results]

    def view_inputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """As `Program.view_inputs`: the inputs alone."""
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
