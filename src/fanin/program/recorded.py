"""A program on a GPU as a CUDA graph: one launch for all of its operations.

On a GPU the host takes longer to launch a small operation than the device to run it. What a program launches is the
same in every run, on the same memory, so it is recorded once and then played.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fanin.program.effects import tensors_of
from fanin.program.memory import is_dense
from fanin.program.trace import Traced

_KINDS = ("cuda",)  # of devices that record; "cuda" is AMD's name too
_RUNS_BEFORE = 2  # libraries make their handles and workspaces in the first ones, which a recording must not


def can_be_recorded(traced: Traced) -> bool:
    """Whether all that a program works on lies on one GPU: what the host does would be missing in a recording."""
    values = [one for node in traced.graph.nodes for one in tensors_of(node.meta.get("val"))]
    values += [one for one in traced.static.values() if isinstance(one, Tensor)]
    devices = {one.device for one in values}
    inputs = [node.meta["val"] for node in traced.inputs]
    return len(devices) == 1 and devices.pop().type in _KINDS and bool(inputs) and all(map(is_dense, inputs))


class Recorded:
    """The functions `look` and `run` of a program, the first runs as they are, later ones from a recording.

    Args:
        look: from inputs to inputs and views of them.
        run: what is recorded: of these and memory for the results.
        traced: what they were made of.
        results: fake tensors for what `run` writes.

    A recording knows memory by its address. So it has inputs and results of its own, and each run copies; everything
    else that a program reads or writes is the same memory as long as the program is.
    """

    def __init__(
        self, look: Callable[..., list[Tensor]], run: Callable[..., None], traced: Traced, results: Sequence[Tensor]
    ):
        self._inputs = [_memory_for(node.meta["val"]) for node in traced.inputs]
        self._device = self._inputs[0].device
        self._results = [torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in results]
        self._given = [*look(*self._inputs), *self._results]
        self._run = run
        self._generators = [one for one in traced.static.values() if isinstance(one, torch.Generator)]
        self._stream: Any = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._graph: Any = None
        self._runs = 0
        self._can_record = True

    def look(self, *inputs: Tensor) -> list[Tensor]:
        """The inputs: views are taken of the recording's own."""
        return list(inputs)

    def run(self, *given: Tensor) -> None:
        """One run on inputs and memory for results."""
        count = len(self._inputs)
        for own, one in zip(self._inputs, given[:count], strict=True):
            own.copy_(one)
        if self._graph is None and self._can_record and self._runs >= _RUNS_BEFORE:
            self._record()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._run_on_stream()
        for one, own in zip(given[count:], self._results, strict=True):
            one.copy_(own)

    def _run_on_stream(self) -> None:
        """Launch every operation, where the recording would have them: libraries keep workspaces by stream."""
        self._runs += 1
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self._run(*self._given)
        current.wait_stream(self._stream)

    def _record(self) -> None:
        """Record a run without running; what a GPU cannot record is launched one by one for good."""
        graph = torch.cuda.CUDAGraph()
        try:
            for generator in self._generators:
                graph.register_generator_state(generator)
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                self._run(*self._given)
        except RuntimeError:
            self._can_record = False
        else:
            self._graph = graph


def _memory_for(value: Tensor) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
