"""From a function of tensors to a graph of ATen operations.

The function runs once, on fake tensors: they have shapes and dtypes, but no values. So whatever depends on a value (an
`if` on a tensor, `.item()`, numpy) fails here, instead of being frozen into the graph unseen.
"""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_impls import op_implementations_dict
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from fanin.errors import NotTraceableError
from fanin.program.effects import tensors_of
from fanin.program.normalizations import PLAINLY

# torch traces one function at a time: it changes what every module's call does for a while.
_TRACING = threading.RLock()

# torch has no meta kernels for these, and would run them on real zeros as large as all weights and their state.
for _name in ("_fused_adam_", "_fused_adamw_"):
    if hasattr(torch.ops.aten, _name):
        _operation = getattr(torch.ops.aten, _name).tensor_lr
        op_implementations_dict.setdefault(_operation, lambda mode, operation, *args, **kwargs: None)


# Operations whose results look at their input although their schemas do not say so -> the same that say it.
_LOOKS = {
    torch.ops.aten.unsafe_split.Tensor: torch.ops.aten.split.Tensor,
    torch.ops.aten.unsafe_split_with_sizes.default: torch.ops.aten.split_with_sizes.default,
}


class _Watching(FakeTensorMode):
    """A mode that remembers its fake tensors, weakly: calls should not keep any."""

    def __init__(self, **options: Any):
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.made: list[weakref.ref[Tensor]] = []

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As FakeTensorMode's."""
        results = super().dispatch(func, types, args, kwargs or {})
        self.made += map(weakref.ref, tensors_of(results))
        return results


def is_traced(tensor: Tensor) -> bool:
    """Whether this tensor stands for the values of a program that is being traced."""
    return isinstance(getattr(tensor, "fake_mode", None), _Watching)


@dataclass
class Traced:
    """A graph and what its placeholders stand for.

    Attributes:
        graph: one `call_function` node for each ATen operation, in the order in which they ran. `meta["val"]` is a fake
            tensor with shape, dtype, strides, and a storage that tells which values share memory.
        static: placeholder (or constant) -> the tensor that it stands for, which every run reads and may change.
        inputs: the placeholders of what each run is given.
        made: the fake tensors that were made while tracing.
    """

    graph: fx.Graph
    static: dict[fx.Node, Tensor]
    inputs: list[fx.Node]
    made: list[weakref.ref[Tensor]]

    def kept(self) -> list[Tensor]:
        """Fake tensors that the function left somewhere: in a cache, or in an object."""
        known = {id(one) for node in self.graph.nodes for one in tensors_of(node.meta.get("val"))}
        for collects in (True, False):
            found = [one for made in self.made if (one := made()) is not None and id(one) not in known]
            if found and collects:
                found.clear()
                gc.collect()  # they may only hold each other
        return found

    @property
    def captured(self) -> list[Tensor]:
        """Tensors that the function took from elsewhere."""
        return [one for node, one in self.static.items() if node.op == "get_attr" and isinstance(one, Tensor)]

    @property
    def outputs(self) -> list[Any]:
        """What a run returns: nodes, or None."""
        return list(next(node for node in self.graph.nodes if node.op == "output").args[0])


def trace(
    function: Callable[..., Sequence[Any]],
    static: Sequence[Tensor],
    inputs: Sequence[Tensor],
    plain: Mapping[Any, Callable[..., Any]] | None = None,
) -> Traced:
    """The graph of `function(*static, *inputs)`, which returns a flat list of tensors or None.

    Args:
        function: made of torch operations. In-place changes of what it is given are part of the graph.
        static: tensors that are the same in every run; each may be given once.
        inputs: examples of what each run brings: their shapes and dtypes count.
        plain: operation -> a function to trace in its place.

    Whatever `function` raises comes through. Tensors that it takes from elsewhere become static too.
    """
    with _TRACING, torch.inference_mode(False), _without_log(), _Watching(allow_non_fake_inputs=True) as mode:
        given = [*static, *_told_apart(inputs, static)]
        fakes = [mode.from_tensor(tensor, static_shapes=True) for tensor in given]
        memory = [one.untyped_storage()._cdata for one in fakes]
        module = make_fx(
            lambda *given: list(function(*given)),
            tracing_mode="real",
            decomposition_table={**_LOOKS, **PLAINLY, **(plain or {})},
        )(*fakes)
    if memory != [one.untyped_storage()._cdata for one in fakes]:
        raise NotTraceableError("a call puts other memory under a tensor (`x.data = ...`)")
    graph = module.graph
    _turn_in_place_views(graph)
    _refuse_others(graph)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    known = dict(zip(placeholders, static, strict=False))
    for node in graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(module, node.target)
    return Traced(graph, known, placeholders[len(static) :], mode.made)


def _told_apart(inputs: Sequence[Tensor], static: Sequence[Tensor]) -> list[Tensor]:
    """The inputs; for one that was given before, another tensor on its memory: the next run may bring two. For one from
    inference mode, of which autograd takes none, an empty one like it."""
    known, found = {*map(id, static)}, []
    for one in inputs:
        if one.is_inference():
            found.append(torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=one.device))
        else:
            found.append(one.detach().requires_grad_(one.requires_grad) if id(one) in known else one)
        known.add(id(one))
    return found


@contextmanager
def _without_log() -> Iterator[None]:
    """Without torch's log of operations that fail on fake tensors: the exception tells."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


def _refuse_others(graph: fx.Graph) -> None:
    """NotTraceableError for sparse values, which programs have no memory for, for complex numbers, whose conjugate may
    be no more than a note on a tensor, and for several results that are written where the call says (`out=`)."""
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        returned = [] if schema is None else [one.alias_info for one in schema.returns]
        if len(returned) > 1 and any(one is not None and one.is_write for one in returned):
            raise NotTraceableError(f"{node.target} writes several results into tensors that are given")
        for value in tensors_of(node.meta.get("val")):
            if value.layout != torch.strided or value.is_complex():
                raise NotTraceableError(f"{node.target} gives {value.dtype} numbers of layout {value.layout}")


def _turn_in_place_views(graph: fx.Graph) -> None:
    """`squeeze_(x)` -> `squeeze(x)`: planned memory keeps its shape. NotTraceableError where it is an input's."""
    for node in graph.nodes:
        if torch.Tag.inplace_view not in getattr(node.target, "tags", ()):
            continue
        wanted = [(one.name, str(one.type)) for one in node.target._schema.arguments]
        packet = getattr(torch.ops.aten, node.target.overloadpacket.__name__.removesuffix("_"), None)
        overloads = [getattr(packet, name) for name in packet.overloads()] if packet is not None else []
        fitting = [o for o in overloads if [(a.name, str(a.type)) for a in o._schema.arguments] == wanted]
        if not fitting or node.args[0].op == "placeholder":
            raise NotTraceableError(f"{node.target} changes the shape of a tensor in place")
        node.target = fitting[0]
