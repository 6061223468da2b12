"""A program on a GPU as a CUDA graph: one launch for all of its operations.

On a GPU the host takes longer to launch a small operation than the device to run it. What a program launches is the
same in every run, on the same memory, so it is recorded once and then played.
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

_KINDS = ("cuda",)  # of devices that record; "cuda" is AMD's name too
# Runs in a thread before it records: libraries make their handles for the thread in the first, and a batch of a rare
# shape is not worth a recording, which waits for all that the GPU has to do.
_RUNS_BEFORE = 8
_ONE_AT_A_TIME = threading.RLock()  # a recording must not meet another one
_streams: dict[torch.device, Any] = {}


def can_be_recorded(traced: Traced) -> bool:
    """Whether all that a program works on lies on one GPU: what the host does would be missing in a recording."""
    values = [one for node in traced.graph.nodes for one in tensors_of(node.meta.get("val"))]
    values += [one for one in traced.static.values() if isinstance(one, Tensor)]
    devices = {one.device for one in values}
    inputs = [node.meta["val"] for node in traced.inputs]
    return len(devices) == 1 and devices.pop().type in _KINDS and bool(inputs) and all(map(is_dense, inputs))


class RecordedGraph:
    """The functions `view_inputs` and `run` of a program, the first runs as they are, later ones from a recording.

    Args:
        view_inputs: from inputs to inputs and views of them.
        run: what is recorded: of these and memory for the results.
        traced: what they were made of.
        results: fake tensors for what `run` writes.

    A recording knows memory by its address. So it has inputs and results of its own, and each run copies; everything
    else that a program reads or writes is the same memory as long as the program is. Runs that come on several streams
    wait for each other.
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
        self._given = [*view_inputs(*self._inputs), *self._results]
        self._run = run
        self._generators = [one for one in traced.static.values() if isinstance(one, torch.Generator)]
        self._done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._graph: Any = None
        self._settings: tuple[Any, ...] = ()  # that hold for the recording
        self._runs: Counter[int] = Counter()  # by thread
        self._can_record = True

    def view_inputs(self, *inputs: Tensor) -> list[Tensor]:
        """The inputs: views are taken of the recording's own."""
        return list(inputs)

    def run(self, *given: Tensor) -> None:
        """One run on inputs and memory for results."""
        count, current = len(self._inputs), torch.cuda.current_stream(self._device)
        current.wait_event(self._done)
        for own, one in zip(self._inputs, given[:count], strict=True):
            own.copy_(one)
        if torch.cuda.is_current_stream_capturing():  # a recording of the user's own
            self._run(*self._given)
        else:
            self._play()
        for one, own in zip(given[count:], self._results, strict=True):
            one.copy_(own)
        self._done.record(current)

    def _play(self) -> None:
        if self._settings != _settings():
            self._graph = None
        thread = threading.get_ident()
        if self._graph is None and self._can_record and self._runs[thread] >= _RUNS_BEFORE:
            with _ONE_AT_A_TIME:
                self._record()
        if self._graph is not None:
            self._graph.replay()
            return
        self._runs[thread] += 1
        if self._runs[thread] != _RUNS_BEFORE:
            self._run(*self._given)
            return
        with _waits_of_the_host() as found:
            self._run(*self._given)
        self._can_record &= not found

    def _record(self) -> None:
        """Record a run without running; what a GPU cannot record is launched one by one for good."""
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
                    self._run(*self._given)
                _clear_workspaces()
        except Exception:
            self._can_record = False
        else:
            self._graph = graph


def _settings() -> tuple[Any, ...]:
    """Settings of torch that choose kernels when they are launched."""
    return torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()


def _stream(device: torch.device) -> Any:
    """The stream of all recordings on a device: one alone, which nobody else is given."""
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _streams[device]


def _clear_workspaces() -> None:
    """Let cuBLAS forget its workspaces, so that a recording has its own: torch.compile frees those that all share."""
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()


@contextmanager
def _waits_of_the_host() -> Any:
    """A list of warnings that is not empty, after the block, if the host waited for the device in it: this cannot be
    recorded, and to try leaves torch's allocator in a bad state."""
    before = torch.cuda.get_sync_debug_mode()
    waits: list[Any] = []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for one in found:
        if "synchroniz" in str(one.message):
            waits.append(one)
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
