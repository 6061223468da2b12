"""A compiled function of tensors: traced, simplified, and run as one straight line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fanin.program.count import Count, Stages
from fanin.program.cuda_graph import RecordedGraph, can_be_recorded
from fanin.program.emit import Emitter
from fanin.program.memory import plan_memory
from fanin.program.numpy_program import array_function, as_array
from fanin.program.passes import PASSES, TracedPass
from fanin.program.trace import Traced, trace
from fanin.program.verify import verify, verify_plan

# What `torch.inference_mode()` enters, without its Python, which takes longer than a small operation.
_InferenceMode: Any = getattr(torch._C, "_InferenceMode", torch.inference_mode)


class Program:
    """A function of tensors, compiled for the shapes of one batch.

    Args:
        function: of the static tensors and then the inputs, returning a flat list of tensors or None; see `trace`.
        static: what is the same tensor in every run: weights, and whatever else the function keeps or changes.
        inputs: examples of what each run brings.
        lasting: further passes, for static tensors that stay as they are: `UNTIL_PREPARED` or `FOR_GOOD`.

    Attributes:
        is_recorded: whether later runs play a recording: on a GPU, where nothing lies elsewhere.

    A call takes the inputs and returns new tensors for the results. Static tensors are read, and changed, in place;
    `run_into` writes the results into tensors that are given. One run at a time: threads wait for each other.
    """

    def __init__(
        self,
        function: Callable[..., Sequence[Any]],
        static: Sequence[Tensor] = (),
        inputs: Sequence[Tensor] = (),
        lasting: Sequence[TracedPass] = (),
    ):
        traced = trace(function, static, inputs)
        self.captured = traced.captured
        stages = Stages(traced)
        stages.add("traced")
        for simplify in PASSES:
            simplify(traced.graph)
            verify(traced, simplify.__name__)
            stages.add(simplify.__name__)
        for add in lasting:
            add(traced)
            verify(traced, add.__name__)
            stages.add(add.__name__)
        self.stages: list[tuple[str, Count]] = stages.costs
        self.traced: Traced = traced
        self.plan = plan_memory(traced.graph)
        verify_plan(self.plan)
        emitter = Emitter(traced, self.plan)
        functions, self.source = emitter.functions()
        self._view: Callable[..., list[Tensor]] = functions["view_inputs"]
        self._run: Callable[..., None] = functions["run"]
        self._prepare: Callable[[], None] | None = functions.get("prepare")
        self._arena = emitter.arena
        self._lock = threading.Lock()
        values = [None if node is None else node.meta["val"] for node in traced.outputs]
        self.results = [value for value in values if value is not None]
        self.is_recorded = can_be_recorded(traced)
        if self.is_recorded:
            with _InferenceMode(True):
                recorded = RecordedGraph(self._view, self._run, traced, self.results)
            self._view, self._run = recorded.view_inputs, recorded.run
        # Views of one number: `empty_like` of a tensor is the shortest way to a new one.
        self._templates = [
            torch.empty((), dtype=value.dtype, device=value.device).expand(value.shape) for value in self.results
        ]
        self._places = [place for place, value in enumerate(values) if value is not None]
        self._count = len(values)
        self.prepare()
        # The same by numpy, where the program is so small that this is faster; then every run goes this way.
        self.on_arrays: Callable[[Any], list[Any]] | None = None
        if lasting and not self.is_prepared:
            small = array_function(traced)
            if small is not None:
                self.on_arrays, self.source = small

    def prepare(self) -> None:
        """Compute again what lasts for many runs: after a change of the static tensors of a frozen program."""
        if self._prepare is not None:
            with self._lock, _InferenceMode(True):
                self._prepare()

    @property
    def is_prepared(self) -> bool:
        """Whether there is something that lasts for many runs."""
        return self._prepare is not None

    def new_results(self) -> list[Tensor]:
        """Memory for the results of one run."""
        return [torch.empty_like(value) for value in self._templates]

    def __call__(self, *inputs: Tensor) -> list[Tensor | None]:
        """The results for these inputs, as new tensors."""
        results = self.new_results()
        self.run_into(inputs, results)
        found: list[Tensor | None] = [None] * self._count
        for place, result in zip(self._places, results, strict=True):
            found[place] = result
        return found

    def run_into(self, inputs: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Run, and write the results into these tensors."""
        if self.on_arrays is not None:
            for result, found in zip(results, self.on_arrays(as_array(inputs[0])), strict=True):
                result.copy_(torch.from_numpy(found))
            return
        with self._lock, _InferenceMode(True):
            self._run(*self._view(*inputs), *results)

    def view_inputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs with the views of them that the program needs, for `run_on`: once for inputs that are refilled."""
        with _InferenceMode(True):
            return self._view(*inputs)

    def run_on(self, views: list[Tensor], results: Sequence[Tensor]) -> None:
        """As `run_into`, on what `view_inputs` gave."""
        with self._lock, _InferenceMode(True):
            self._run(*views, *results)

    def stats(self) -> list[tuple[str, Count]]:
        """Operations, FLOPs, bytes moved and peak bytes of intermediate results: as traced, and after each pass."""
        return self.stages

    def print(self) -> None:
        """Print the lines that run with the shapes of their results, and what each pass saved."""
        print(self)

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.stages)
        table = [f"{'':{width}}  operations          FLOPs          bytes    peak bytes"]
        for name, cost in self.stages:
            table.append(f"{name:{width}}{cost.operations:12,}{cost.flops:15,}{cost.bytes:15,}{cost.peak:14,}")
        note = ["Later runs play a recording of these lines, a CUDA graph.", ""] if self.is_recorded else []
        return "\n".join([self.source.rstrip(), "", *note, *table])
