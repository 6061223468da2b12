"""How a model computes: by straight-line code made from its graph, or by a `call` of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import nn

from fanin.adapters.rows import rows
from fanin.graph.infer import Spec
from fanin.graph.node import FunctionCall, input_symbol
from fanin.graph.symbolic import SymbolicTensor, is_symbolic, symbols_in
from fanin.graph.tree import tree_map
from fanin.layers.base.ledger import Noted
from fanin.layers.base.mask_propagation import with_masks
from fanin.layers.base.scope import Entry, current
from fanin.layers.base.shapes import map_shapes
from fanin.layers.base.symbolic_call import output_shape
from fanin.models.mask_support import MaskedModel
from fanin.models.network import Network

Run = Callable[..., Any]
Call = TypeVar("Call", bound=Callable[..., Any])
Kept = tuple[tuple[str, Entry], ...]


def runs_graph(call: Call) -> Call:
    """Mark a `call` that is the graph and nothing else: the short way may go round it."""
    cast(Any, call).is_graph = True
    return call


def _runs_graph(model: Execution) -> bool:
    return bool(getattr(type(model).call, "is_graph", False))


class Execution(MaskedModel):
    """The part of a model that runs it.

    Lowered once: `_run` is straight-line code over the layers, made anew when the graph changes.
    """

    _run: Run | None = None
    # dtype, sizes of a row, `Noted.count`, the children and the models among them
    _direct: tuple[torch.dtype, torch.Size, int, list[nn.Module | None], list[Execution]] | None = None
    _given: list[Any] | None = None  # the children that the graph calls, under the names "0", "1", ...
    _own_lists = frozenset(["_given"])
    _kept_symbols: Kept = ()
    _noted_then = 0

    def _graph(self, asked: str) -> Network:
        if self._network is None:
            raise AttributeError(
                f"{type(self).__name__} {self.name!r} has no {asked!r}: it computes by its `call` method, or does not "
                "know its input shape yet."
            )
        return self._network

    def build(self, input_shape: Any) -> None:
        """Build the layers of a `call` of one's own, by a trial for inputs of this shape (None where unknown).

        A `call` that cannot run without values leaves its layers to the first real call.
        """
        if self._network is not None or input_shape is None:
            return
        self.built = True  # as far as the trial is concerned
        try:
            with contextlib.suppress(ValueError):
                output_shape(self, input_shape)
        finally:
            self.built = False

    # --- calling ---------------------------------------------------------------------------------------------

    def forward(self, inputs: Any = None, /, *args: Any, **kwargs: Any) -> Any:
        """One call; straight to the code of the graph where there is nothing else to do.

        `adapter=["ann", None, "bob"]` says which adapter acts in each row, as `fanin.adapters.rows` does.
        """
        direct = self._direct
        if (
            direct is not None and type(inputs) is torch.Tensor and not args and not kwargs
            and inputs.dtype is direct[0] and inputs.shape[1:] == direct[1] and Noted.count == direct[2]
            and [*self._modules.values()] == direct[3]
        ):  # fmt: skip
            return self._run(inputs)  # type: ignore[misc]
        if "adapter" in kwargs and "adapter" not in self._call_arguments:
            names = kwargs.pop("adapter")
            with contextlib.nullcontext() if names is None else rows(self, names):
                return self.forward(inputs, *args, **kwargs)
        if not torch.compiler.is_compiling():
            self._see_children()
        if not self._met_tensors and torch._C._get_tracing_state() is not None:
            self._call_untraced(inputs, *args, **kwargs)
            if self._met_tensors:
                return self.forward(inputs, *args, **kwargs)
        return super().forward(inputs, *args, **kwargs)

    # --- children that were replaced -------------------------------------------------------------------------

    def _see_children(self) -> None:
        """Look whether the children are those that the graph calls; others may be there beside them."""
        children = [*self._modules.values()]
        direct = self._direct
        if direct is not None and direct[3] == children:
            return
        if self._given is not None and children != self._given:
            self._see_replaced(self._given)
        if direct is not None and self._direct is direct:
            self.__dict__["_direct"] = (*direct[:3], children, _models(children))

    def _see_all_children(self) -> None:
        """The same, for the models inside too: before a pass, whose steps are traced and must change nothing."""
        direct, children = self._direct, [*self._modules.values()]
        if direct is not None and direct[3] == children:
            models = direct[4]
        else:
            self._see_children()
            models = _models(self._modules.values())
        for model in models:
            model._see_all_children()

    def _see_replaced(self, given: list[Any]) -> None:
        """RuntimeError where another module stands in the place of one that the graph calls."""
        for place, layer in enumerate(given):
            found = self._modules.get(str(place))
            if found is not layer:
                raise RuntimeError(
                    f"Model {self.name!r}: its child {str(place)!r} is {_kind(found)}, but its graph calls layer "
                    f"{layer.name!r}, {_kind(layer)}, and keeps it. Make another model, in which a function of yours "
                    f"says what stands for {layer.name!r}: fanin.models.clone_model(model, clone_function=...). A "
                    "module goes into fanin.layers.TorchModule(module)."
                )

    def _call_untraced(self, *args: Any, **kwargs: Any) -> None:
        """A first call beside torch.jit.trace, which wants two traces to be alike: later calls take shorter ways."""
        tracer = cast(Any, torch._C)
        state = tracer._get_tracing_state()
        tracer._set_tracing_state(None)
        try:
            with torch.no_grad():
                super().forward(*args, **kwargs | {"training": False})
        finally:
            tracer._set_tracing_state(state)

    @runs_graph
    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The outputs of the graph, in their structure."""
        if self._network is None:
            if type(self).forward is not Execution.forward:  # PyTorch's way to write a model
                return self.forward(inputs)
            raise NotImplementedError(
                f"Model {type(self).__name__} has no graph, fanin.Model(inputs, outputs), and no `call` method."
            )
        if mask is not None:
            inputs = with_masks(f"Model {self.name!r}", inputs, mask)
        found = self._code()(*self._network.arrange(inputs))
        if not self._kept_symbols:
            return found
        outputs, kept = found
        self._record_kept(kept)
        return outputs

    def _code(self) -> Run:
        """The graph as a function of its inputs' values; where losses or updates were added with symbolic values, it
        returns the outputs and these values."""
        if self._run is None or self._noted_then != Noted.count:
            network = self._graph("graph")
            self.__dict__["_direct"], self.__dict__["_noted_then"] = None, Noted.count
            self.__dict__["_kept_symbols"] = kept = tuple(self._find_kept()) if Noted.count else ()
            self.__dict__["_run"] = network.compile(self.name, self._callable, [entry.value for _, entry in kept])
            if self._met_tensors:
                self._find_short_way()
        assert self._run is not None
        return self._run

    def _outputs_code(self) -> Run:
        """The graph as a function that returns the outputs alone."""
        return self._graph("graph").compile(self.name, self._callable) if self._kept_symbols else self._code()

    def _kept_entries(self, kind: str) -> list[Entry]:
        """As a layer's; of those with symbolic values, the ones that this graph can compute."""
        entries, network = super()._kept_entries(kind), self._network
        if network is None or not Noted.count:
            return entries
        return [e for e in entries if not is_symbolic(e.value) or network.leads_to(symbols_in(e.value))]

    def _find_kept(self) -> Iterator[tuple[str, Entry]]:
        """Losses and updates that were added outside calls with symbolic values."""
        for kind in ("losses", "updates"):
            for entry in self._kept_entries(kind):
                if is_symbolic(entry.value):
                    yield kind, entry

    def _record_kept(self, values: list[Any]) -> None:
        """What they came to in this call joins its record."""
        assert current.scope is not None
        for (kind, entry), value in zip(self._kept_symbols, values, strict=True):
            getattr(current.scope.record, kind).append(Entry(value, entry.owner, entry.inputs))

    def _callable(self, operation: Any) -> Any:
        """What stands for a layer in the code."""
        return operation

    def _forget_code(self) -> None:
        """The graph has changed."""
        self.__dict__["_run"] = self.__dict__["_direct"] = None

    def _find_short_way(self) -> None:
        """One plain input and layers that add nothing: the code alone does the whole call."""
        network = self._network
        if network is None or self._run is None or self.activity_regularizer is not None:
            return
        if not self._call_adds_nothing() or not _runs_graph(self):
            return
        symbol = network.inputs
        if isinstance(symbol, list) and len(symbol) == 1:
            symbol = symbol[0]
        if isinstance(symbol, SymbolicTensor) and None not in symbol.shape[1:]:
            sizes = torch.Size(size for size in symbol.shape[1:] if size is not None)
            children = [*self._modules.values()]
            self.__dict__["_direct"] = (symbol.dtype, sizes, self._noted_then, children, _models(children))

    def _call_adds_nothing(self) -> bool:
        if self._network is None:
            return super()._call_adds_nothing()
        if self._kept_symbols:
            return False
        if not _runs_graph(self):  # a `call` of a subclass, which may do more than the graph
            return super()._call_adds_nothing()
        layers = self._network.layers
        return all(layer._call_adds_nothing() and layer.activity_regularizer is None for layer in layers)

    def _convert(self, leaf: Any) -> Any:
        """A graph's layers cast for themselves: the first may need integers, or all digits."""
        if self._network is not None and isinstance(leaf, torch.Tensor):
            return leaf
        return super()._convert(leaf)

    # --- shapes ----------------------------------------------------------------------------------------------

    def _says_shape(self) -> bool:
        return self._network is not None or type(self).compute_output_shape is not Execution.compute_output_shape

    def _output_specs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (
            super()._output_specs(args, kwargs)
            if self._network is None
            else self._network.specs(args[0], self._outputs_code())
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shapes of the outputs, in their structure, for shapes in the structure of the inputs."""
        if self._network is None:
            return super().compute_output_shape(input_shape)
        probe = FunctionCall(_probe, "probe")
        dtype = self.dtype_policy.compute
        given = map_shapes(lambda shape: input_symbol(probe, shape, dtype), input_shape)
        specs = self._network.specs(given, self._outputs_code())
        return tree_map(lambda leaf: leaf.shape if isinstance(leaf, Spec) else leaf, specs)


def _models(children: Iterable[nn.Module | None]) -> list[Execution]:
    return [child for child in children if isinstance(child, Execution)]


def _kind(module: Any) -> str:
    return "gone" if module is None else f"of class {type(module).__name__}"


def _probe() -> None:
    """Where shapes to try come from."""
