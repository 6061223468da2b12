"""From a function of tensors to a graph of ATen operations.

The function runs once, on fake tensors, which have shapes and dtypes but no values. So whatever depends on a value (an
`if` on a tensor, `.item()`, numpy) fails here, instead of being baked into the graph.
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
from fanin.program.normalizations import NORMALIZATIONS

# One trace at a time: while torch traces, it patches the calls of all modules.
_TRACING = threading.RLock()

# Without meta kernels, torch would run these on real zeros as large as all weights and their state.
for _name in ("_fused_adam_", "_fused_adamw_"):
    if hasattr(torch.ops.aten, _name):
        _operation = getattr(torch.ops.aten, _name).tensor_lr
        op_implementations_dict.setdefault(_operation, lambda mode, operation, *args, **kwargs: None)


# Operations whose results are views, against their schemas -> the same with a schema that says so.
_VIEWS = {
    torch.ops.aten.unsafe_split.Tensor: torch.ops.aten.split.Tensor,
    torch.ops.aten.unsafe_split_with_sizes.default: torch.ops.aten.split_with_sizes.default,
}


class _TrackingFakeMode(FakeTensorMode):
    """A fake tensor mode with weak references to all of its fake tensors, to find those that calls keep."""

    def __init__(self, **options: Any):
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.created: list[weakref.ref[Tensor]] = []

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As `FakeTensorMode.dispatch`."""
        results = super().dispatch(func, types, args, kwargs or {})
        self.created += map(weakref.ref, tensors_of(results))
        return results


def is_traced(tensor: Tensor) -> bool:
    """Whether this is a fake tensor of a trace that is under way."""
    return isinstance(getattr(tensor, "fake_mode", None), _TrackingFakeMode)


@dataclass
class Traced:
    """A traced function.

    Attributes:
        graph: one `call_function` node for each ATen operation, in the order in which they ran. `meta["val"]` is a fake
            tensor with shape, dtype, strides, and a storage that tells which values share memory.
        static: placeholder, or `get_attr` node of a captured object -> the tensor that every run reads and may mutate.
        inputs: the placeholders of the arguments of each run.
        created: the fake tensors that were created while tracing.
    """

    graph: fx.Graph
    static: dict[fx.Node, Tensor]
    inputs: list[fx.Node]
    created: list[weakref.ref[Tensor]]

    def leaked(self) -> list[Tensor]:
        """Intermediate fake tensors that are still alive: the function put them into a cache or an object."""
        known = {id(one) for node in self.graph.nodes for one in tensors_of(node.meta.get("val"))}
        for may_collect in (True, False):
            found = [one for reference in self.created if (one := reference()) is not None and id(one) not in known]
            if found and may_collect:
                found.clear()
                gc.collect()  # they may only hold each other
        return found

    @property
    def captured(self) -> list[Tensor]:
        """Tensors that the function read without being given them: globals, closures, attributes."""
        return [one for node, one in self.static.items() if node.op == "get_attr" and isinstance(one, Tensor)]

    @property
    def outputs(self) -> list[Any]:
        """The results: nodes, or None."""
        return list(next(node for node in self.graph.nodes if node.op == "output").args[0])


def trace(
    function: Callable[..., Sequence[Any]],
    static: Sequence[Tensor],
    inputs: Sequence[Tensor],
    decompositions: Mapping[Any, Callable[..., Any]] | None = None,
) -> Traced:
    """The graph of `function(*static, *inputs)`, which returns a flat list of tensors or None.

    Args:
        function: made of torch operations. Mutations of its arguments become part of the graph.
        static: tensors that are the same in every run, without repeats.
        inputs: examples of the other arguments: only their shapes, strides, dtypes and devices count.
        decompositions: operation -> a function to trace in its place.

    Tensors that the function captures become static too. Raises whatever `function` raises.
    """
    with _TRACING, torch.inference_mode(False), _silenced_log(), _TrackingFakeMode(allow_non_fake_inputs=True) as mode:
        arguments = [*static, *_without_repeats(inputs, static)]
        fakes = [mode.from_tensor(tensor, static_shapes=True) for tensor in arguments]
        memory = [one.untyped_storage()._cdata for one in fakes]
        module = make_fx(
            lambda *arguments: list(function(*arguments)),
            tracing_mode="real",
            decomposition_table={**_VIEWS, **NORMALIZATIONS, **(decompositions or {})},
        )(*fakes)
    if memory != [one.untyped_storage()._cdata for one in fakes]:
        raise NotTraceableError("a call puts other memory under a tensor (`x.data = ...`)")
    graph = module.graph
    _make_views_out_of_place(graph)
    _refuse_unsupported(graph)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    known = dict(zip(placeholders, static, strict=False))
    for node in graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(module, node.target)
    return Traced(graph, known, placeholders[len(static) :], mode.created)


def _without_repeats(inputs: Sequence[Tensor], static: Sequence[Tensor]) -> list[Tensor]:
    """The inputs as distinct tensors that autograd takes.

    A tensor that is given twice gets a second one on the same memory, as later runs may bring two different tensors. A
    tensor from inference mode is replaced by an empty one like it.
    """
    known, found = {*map(id, static)}, []
    for one in inputs:
        if one.is_inference():
            found.append(torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=one.device))
        else:
            found.append(one.detach().requires_grad_(one.requires_grad) if id(one) in known else one)
        known.add(id(one))
    return found


@contextmanager
def _silenced_log() -> Iterator[None]:
    """Inside the block, torch does not log operations that fail on fake tensors: they raise anyway."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


def _refuse_unsupported(graph: fx.Graph) -> None:
    """NotTraceableError for what programs do not support: sparse values, complex numbers (their conjugation is lazy: a
    bit on the tensor), and calls with several `out=` tensors."""
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        returned = [] if schema is None else [one.alias_info for one in schema.returns]
        if len(returned) > 1 and any(one is not None and one.is_write for one in returned):
            raise NotTraceableError(f"{node.target} writes several results into tensors that are given")
        for value in tensors_of(node.meta.get("val")):
            if value.layout != torch.strided or value.is_complex():
                raise NotTraceableError(f"{node.target} gives {value.dtype} numbers of layout {value.layout}")


def _make_views_out_of_place(graph: fx.Graph) -> None:
    """`squeeze_(x)` -> `squeeze(x)`, as planned memory keeps its shape. NotTraceableError where x is an argument."""
    for node in graph.nodes:
        if torch.Tag.inplace_view not in getattr(node.target, "tags", ()):
            continue
        signature = [(one.name, str(one.type)) for one in node.target._schema.arguments]
        packet = getattr(torch.ops.aten, node.target.overloadpacket.__name__.removesuffix("_"), None)
        overloads = [getattr(packet, name) for name in packet.overloads()] if packet is not None else []
        matching = [o for o in overloads if [(a.name, str(a.type)) for a in o._schema.arguments] == signature]
        if not matching or node.args[0].op == "placeholder":
            raise NotTraceableError(f"{node.target} changes the shape of a tensor in place")
        node.target = matching[0]
