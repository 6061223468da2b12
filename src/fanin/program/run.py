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
        static: tensors that are the same in every run: weights, and whatever else the function keeps or mutates.
        inputs: examples of the other arguments: their shapes, strides, dtypes and devices count.
        further_passes: run after `PASSES`, where static tensors do not change: `UNTIL_PREPARED` or `FOR_GOOD`.

    Attributes:
        captured: the tensors that the function read without being given them.
        results: fake tensors like the results.
        source: the generated Python.
        is_recorded: whether later runs replay a CUDA graph: if all values are on one GPU.
        numpy_run: for a small frozen program, array -> arrays: the same by numpy, which then serves every run.

    A call takes the inputs and returns the results as new tensors; `run_into` writes them into given tensors. Static
    tensors are read and mutated in place. One run at a time: threads wait for each other.
    """

    def __init__(
        self,
        function: Callable[..., Sequence[Any]],
        static: Sequence[Tensor] = (),
        inputs: Sequence[Tensor] = (),
        further_passes: Sequence[TracedPass] = (),
    ):
        traced = trace(function, static, inputs)
        self.captured = traced.captured
        stages = Stages(traced)
        stages.add("traced")
        for simplify in PASSES:
            simplify(traced.graph)
            verify(traced, simplify.__name__)
            stages.add(simplify.__name__)
        for add in further_passes:
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
        # `empty_like` of a tensor is the fastest way to a new one; these views of one number take no memory.
        self._templates = [
            torch.empty((), dtype=value.dtype, device=value.device).expand(value.shape) for value in self.results
        ]
        self._result_positions = [place for place, value in enumerate(values) if value is not None]
        self._output_count = len(values)
        self.prepare()
        self.numpy_run: Callable[[Any], list[Any]] | None = None
        if further_passes and not self.is_prepared:
            small = array_function(traced)
            if small is not None:
                self.numpy_run, self.source = small

    def prepare(self) -> None:
        """Recompute the prepared values of a frozen program, after a change of its static tensors."""
        if self._prepare is not None:
            with self._lock, _InferenceMode(True):
                self._prepare()

    @property
    def is_prepared(self) -> bool:
        """Whether there are prepared values: computed from static tensors, once for many runs."""
        return self._prepare is not None

    def new_results(self) -> list[Tensor]:
        """Uninitialized tensors for the results of one run."""
        return [torch.empty_like(value) for value in self._templates]

    def __call__(self, *inputs: Tensor) -> list[Tensor | None]:
        """The results for these inputs, as new tensors."""
        results = self.new_results()
        self.run_into(inputs, results)
        found: list[Tensor | None] = [None] * self._output_count
        for place, result in zip(self._result_positions, results, strict=True):
            found[place] = result
        return found

    def run_into(self, inputs: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Run, and write the results into these tensors."""
        if self.numpy_run is not None:
            for result, found in zip(results, self.numpy_run(as_array(inputs[0])), strict=True):
                result.copy_(torch.from_numpy(found))
            return
        with self._lock, _InferenceMode(True):
            self._run(*self._view(*inputs), *results)

    def view_inputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs and the views of them that the program reads, for `run_on`: once for inputs that are refilled."""
        with _InferenceMode(True):
            return self._view(*inputs)

    def run_on(self, views: list[Tensor], results: Sequence[Tensor]) -> None:
        """As `run_into`, on what `view_inputs` returned."""
        with self._lock, _InferenceMode(True):
            self._run(*views, *results)

    def stats(self) -> list[tuple[str, Count]]:
        """(name, cost) as traced and after each pass: operations, FLOPs, bytes moved, peak bytes of results."""
        return self.stages

    def print(self) -> None:
        """Print the lines that run with the shapes of their results, and what each pass saved."""
        print(self)

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.stages)
        table = [f"{'':{width}}  operations          FLOPs          bytes    peak bytes"]
        for name, cost in self.stages:
            table.append(f"{name:{width}}{cost.operations:12,}{cost.flops:15,}{cost.bytes:15,}{cost.peak:14,}")
        note = ["Later runs replay a recording of these lines, a CUDA graph.", ""] if self.is_recorded else []
        return "\n".join([self.source.rstrip(), "", *note, *table])
