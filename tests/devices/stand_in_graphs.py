"""A stand-in for `torch.cuda`'s graphs on the second device.

As a GPU does, it runs nothing while it records, and later plays operations on the memory that they had: what the host
does in between is lost, values given by the host are those of the recording, and new memory is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Graph:
    """For `torch.cuda.CUDAGraph`; `made` counts recordings, `played` how often they were played, `lines` what."""

    made = played = 0
    lines: list[str] = []
    refuses = ""  # the name of an operation that it cannot record

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.generators: list[torch.Generator] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        """Note a generator, without which its draws would repeat."""
        self.generators.append(generator)

    def replay(self) -> None:
        """Run everything again."""
        type(self).played += 1
        for function, args, kwargs, results in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(_tensors(results), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class _Recording(TorchDispatchMode):
    def __init__(self, graph: Graph):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if Graph.refuses and Graph.refuses in str(func):
            raise RuntimeError("operation not permitted when stream is capturing")
        given = _tensors((args, kwargs))
        assert all(one.device.type == "second" for one in given), func
        generator = kwargs.get("generator")
        assert generator is None or generator in self.graph.generators
        schema = func._schema.arguments
        named = {**dict(zip((one.name for one in schema), args, strict=False)), **kwargs}
        written = _tensors([named.get(one.name) for one in schema if one.alias_info and one.alias_info.is_write])
        before = [one.clone() for one in written]
        results = func(*args, **kwargs)
        for one, was in zip(written, before, strict=True):
            one.copy_(was)
        known = {one.untyped_storage().data_ptr() for one in given}
        for one in _tensors(results):
            if one.untyped_storage().data_ptr() not in known and one.is_floating_point():
                one.fill_(float("nan"))
        self.graph.calls.append((func, args, kwargs, results))
        Graph.lines.append(str(func))
        return results


@contextmanager
def record(graph: Graph, stream: Any, capture_error_mode: str) -> Iterator[None]:
    """For `torch.cuda.graph`."""
    assert capture_error_mode == "thread_local"
    states = [(one, one.get_state()) for one in (torch.default_generator, *graph.generators)]
    try:
        with _Recording(graph):
            yield
    finally:
        for generator, state in states:
            generator.set_state(state)
    Graph.made += 1


class Stream:
    """For `torch.cuda.Stream`."""

    def __init__(self, device: Any):
        assert device.type == "second"

    def wait_event(self, event: Event) -> None:
        """Nothing to wait for."""


class Event:
    """For `torch.cuda.Event`."""

    def record(self, stream: Stream) -> None:
        """Nothing to note."""


FUNCTIONS: dict[str, Any] = {
    "Event": Event,
    "is_current_stream_capturing": lambda: False,
    "get_sync_debug_mode": lambda: 0,
    "set_sync_debug_mode": lambda mode: None,
    "CUDAGraph": Graph,
    "graph": record,
    "Stream": Stream,
    "current_stream": Stream,
    "stream": lambda stream: nullcontext(),
    "device": lambda device: nullcontext(),
}


def _tensors(tree: Any) -> list[Tensor]:
    return [one for one in pytree.tree_leaves(tree) if isinstance(one, Tensor)]
