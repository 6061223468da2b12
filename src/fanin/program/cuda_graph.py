"""A program on a GPU as a CUDA graph: one launch for all of its operations.

On a GPU the host takes longer to launch a small operation than the device to run it. A program launches the same
operations in every run, on the same memory, so they are recorded once and then replayed.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fanin.program.effects import tensors_of
from fanin.program.memory import is_dense
from fanin.program.trace import Traced

_DEVICE_TYPES = ("cuda",)  # that have CUDA graphs; ROCm's are called "cuda" too
# Runs in a thread before it records. In the first, libraries make their handles for the thread; and a batch of a rare
# shape is not worth a recording, which synchronizes with the GPU.
_WARM_UP_RUNS = 8
_recording = threading.RLock()  # one recording at a time
_streams: dict[torch.device, Any] = {}


def can_be_recorded(traced: Traced) -> bool:
    """Whether all values of a program are on one GPU: a graph has no operations of the host."""
    values = [one for node in traced.graph.nodes for one in tensors_of(node.meta.get("val"))]
    values += [one for one in traced.static.values() if isinstance(one, Tensor)]
    devices = {one.device for one in values}
    inputs = [node.meta["val"] for node in traced.inputs]
    return len(devices) == 1 and devices.pop().type in _DEVICE_TYPES and bool(inputs) and all(map(is_dense, inputs))


class RecordedGraph:
    """`view_inputs` and `run` of a program, which launches the first runs and replays a CUDA graph in later ones.

    Args:
        view_inputs: inputs -> the inputs and views of them.
        run: (the inputs and views, memory for the results) -> None; this is recorded.
        traced: the graph of the program.
        results: fake tensors like the results.

    A CUDA graph holds addresses. So it has its own inputs and results, which each run copies from and to; all other
    memory of a program stays where it is as long as the program exists. Runs on several streams wait for each other.
    """

    def __init__(
        self,
        view_inputs: Callable[..., list[Tensor]],
        run: Callable[..., None],
        traced: Traced,
        results: Sequence[Tensor],
    ):
        values = [node.meta["val"] for node in traced.inputs]
        self._device = values[0].device
        self._inputs = [torch.empty_strided(v.shape, v.stride(), dtype=v.dtype, device=v.device) for v in values]
        self._results = [torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in results]
        self._arguments = [*view_inputs(*self._inputs), *self._results]
        self._run = run
        self._generators = [one for one in traced.static.values() if isinstance(one, torch.Generator)]
        self._finished: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._graph: Any = None
        self._settings: tuple[Any, ...] = ()  # under which it was recorded
        self._runs: Counter[int] = Counter()  # by thread
        self._can_record = True

    def view_inputs(self, *inputs: Tensor) -> list[Tensor]:
        """The inputs alone: the views are of the graph's own inputs."""
        return list(inputs)

    def run(self, *arguments: Tensor) -> None:
        """One run: the inputs, then memory for the results."""
        count, current = len(self._inputs), torch.cuda.current_stream(self._device)
        current.wait_event(self._finished)
        for own, one in zip(self._inputs, arguments[:count], strict=True):
            own.copy_(one)
        if torch.cuda.is_current_stream_capturing():  # the user records a graph around this run
            self._run(*self._arguments)
        else:
            self._run_or_replay()
        for one, own in zip(arguments[count:], self._results, strict=True):
            one.copy_(own)
        self._finished.record(current)

    def _run_or_replay(self) -> None:
        if self._settings != _settings():
            self._graph = None
        thread = threading.get_ident()
        if self._graph is None and self._can_record and self._runs[thread] >= _WARM_UP_RUNS:
            with _recording:
                self._record()
        if self._graph is not None:
            self._graph.replay()
            return
        self._runs[thread] += 1
        if self._runs[thread] != _WARM_UP_RUNS:
            self._run(*self._arguments)
            return
        with _host_synchronizations() as found:
            self._run(*self._arguments)
        self._can_record &= not found

    def _record(self) -> None:
        """Record a run, which does not execute it. If that fails, all later runs launch operation by operation."""
        graph, self._settings = torch.cuda.CUDAGraph(), _settings()
        try:
            with torch.cuda.device(self._device):
                for generator in self._generators:
                    graph.register_generator_state(generator)
                _clear_workspaces()
                # The outer block puts the stream back where the inner one fails to.
                with (
                    torch.cuda.stream(_stream(self._device)),
                    torch.cuda.graph(graph, stream=_stream(self._device), capture_error_mode="thread_local"),
                ):
                    self._run(*self._arguments)
                _clear_workspaces()
        except Exception:
            self._can_record = False
        else:
            self._graph = graph


def _settings() -> tuple[Any, ...]:
    """Settings of torch that decide which kernels are launched."""
    return torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()


def _stream(device: torch.device) -> Any:
    """The stream of all recordings on a device, which is used for nothing else."""
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _streams[device]


def _clear_workspaces() -> None:
    """Drop cuBLAS's workspaces, so that a recording allocates its own: torch.compile frees the shared ones."""
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()


@contextmanager
def _host_synchronizations() -> Any:
    """A list that, after the block, has a warning for each time that the host synchronized with the device.

    A run that synchronizes cannot be recorded, and the attempt leaves torch's allocator in a bad state.
    """
    before = torch.cuda.get_sync_debug_mode()
    synchronizations: list[Any] = []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield synchronizations
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for one in found:
        if "synchroniz" in str(one.message):
            synchronizations.append(one)
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
