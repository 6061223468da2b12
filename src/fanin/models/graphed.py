"""What a model can say and do through the graph between its inputs and its outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from fanin.graph.infer import Spec
from fanin.graph.node import FunctionCall, Node, input_symbol, record
from fanin.graph.symbolic import SymbolicTensor, is_symbolic, symbols_in
from fanin.graph.tree import leaves, like_inputs, tree_map
from fanin.layers.input_layer import InputLayer
from fanin.layers.layer import Layer
from fanin.layers.ledger import Noted
from fanin.layers.scope import Entry, collect_losses, current
from fanin.layers.symbolic_call import output_shape
from fanin.masks import get_mask, with_mask
from fanin.models.network import Network

Run = Callable[..., Any]
Kept = tuple[tuple[str, Entry], ...]


class Graphed(Layer):
    """The part of a model that has a graph, or will have one, or has code of its own in `call`.

    Lowered once: `_run` is straight-line code over the layers, made anew when the graph changes.
    """

    _network: Network | None = None
    _run: Run | None = None
    _direct: tuple[torch.dtype, torch.Size, int] | None = None
    _kept_symbols: Kept = ()
    _noted_then = 0

    def _connect(self, network: Network) -> None:
        """Take over the layers of a graph. `state_dict` keys are positions, input layers not counted."""
        own = self.__dict__
        own["_network"] = network
        for place, layer in enumerate(self._counted_layers()):
            self.add_module(str(place), layer)
        shapes = [symbol.shape for symbol in network.input_symbols]
        own["_build_shape"] = like_inputs(shapes)
        self._mark_built()
        self.eval()
        self._code()

    def _counted_layers(self) -> list[Layer]:
        network = self._graph("layers")
        return [layer for layer in network.layers if not isinstance(layer, InputLayer)]

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
        """One call; straight to the code of the graph where there is nothing else to do."""
        direct = self._direct
        if (
            direct is not None and type(inputs) is torch.Tensor and not args and not kwargs
            and inputs.dtype is direct[0] and inputs.shape[1:] == direct[1] and Noted.count == direct[2]
        ):  # fmt: skip
            return self._run(inputs)  # type: ignore[misc]
        return super().forward(inputs, *args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """The outputs of the graph, in their structure."""
        if self._network is None:
            raise NotImplementedError(
                f"Model {type(self).__name__} has no graph, fanin.Model(inputs, outputs), and no `call` method."
            )
        values = self._network.arrange(inputs)
        if mask is not None:
            masks = [*leaves(mask)]
            values = [v if m is None else with_mask(v, m) for v, m in zip(values, masks, strict=True)]
        found = self._code()(*values)
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
        if not self._call_adds_nothing():
            return
        symbol = network.inputs
        if isinstance(symbol, list) and len(symbol) == 1:
            symbol = symbol[0]
        if isinstance(symbol, SymbolicTensor) and None not in symbol.shape[1:]:
            sizes = torch.Size(size for size in symbol.shape[1:] if size is not None)
            self.__dict__["_direct"] = (symbol.dtype, sizes, self._noted_then)

    def _call_adds_nothing(self) -> bool:
        if self._network is None:
            return super()._call_adds_nothing()
        if self._kept_symbols:
            return False
        layers = self._network.layers
        return all(layer._call_adds_nothing() and layer.activity_regularizer is None for layer in layers)

    def _convert(self, leaf: Any) -> Any:
        """A graph's layers cast for themselves: the first may need integers, or all digits."""
        if self._network is not None and isinstance(leaf, torch.Tensor):
            return leaf
        return super()._convert(leaf)

    # --- masks: the layers inside hand them on ---------------------------------------------------------------

    def handles_masks(self) -> bool:
        """True: masks go to the layers inside."""
        return True

    def makes_masks(self) -> bool:
        """Whether it has a `compute_mask` of its own, or its graph makes a mask."""
        if type(self).compute_mask is not Graphed.compute_mask:
            return True
        return self._network is not None and any(symbol.mask is not None for symbol in self._network.output_symbols)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The masks of the outputs for these inputs."""
        if self._network is None:
            return None
        if is_symbolic(inputs):
            return record(_MaskOf(self), (inputs,), {})
        outputs = self(inputs, mask=mask)
        return like_inputs([get_mask(output) for output in leaves(outputs)])

    def _with_masks(self, inputs: Any, outputs: Any, mask: Any) -> Any:
        if type(self).compute_mask is not Graphed.compute_mask:
            return super()._with_masks(inputs, outputs, mask)
        return outputs

    # --- shapes ----------------------------------------------------------------------------------------------

    def _says_shape(self) -> bool:
        return self._network is not None or type(self).compute_output_shape is not Graphed.compute_output_shape

    def _output_specs(self, args: tuple[Any, ...]) -> Any:
        return (
            super()._output_specs(args) if self._network is None else self._network.specs(args[0], self._outputs_code())
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shapes of the outputs, in their structure, for shapes in the structure of the inputs."""
        if self._network is None:
            return super().compute_output_shape(input_shape)
        probe = FunctionCall(_probe, "probe")
        dtype = self.dtype_policy.compute
        given = _map_shapes(lambda shape: input_symbol(probe, shape, dtype), input_shape)
        specs = self._network.specs(given, self._outputs_code())
        return tree_map(lambda leaf: leaf.shape if isinstance(leaf, Spec) else leaf, specs)

    # --- the graph -------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Any]:
        """The layers; of a graph in Keras's order, input layers too; else those set as attributes."""
        if self._network is not None:
            return list(self._network.layers)
        return list(_flat_children(self))

    def _listed(self) -> list[Any]:
        """What a summary lists: layers and recorded functions."""
        return self.layers if self._network is None else list(self._network.operations)

    def _saved_layers(self) -> list[Any]:
        """The layers that files list by class and number; others are found by their attributes."""
        return [] if self._network is None else self.layers

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """The layer of that name, or at that position in `layers`. ValueError if there is none."""
        if (name is None) == (index is None):
            raise ValueError(f"get_layer: give a name or an index, found name={name!r}, index={index!r}.")
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(f"Model {self.name!r} has {len(layers)} layers, found index={index}.")
            return layers[index]
        known = [getattr(layer, "name", None) for layer in layers]
        if name not in known:
            raise ValueError(f"Model {self.name!r} has no layer named {name!r}; it has {known}.")
        return layers[known.index(name)]

    def _ends(self, asked: str) -> Network | None:
        """The graph, or None where a model answers as a plain layer does."""
        return self._network

    @property
    def inputs(self) -> list[SymbolicTensor]:
        """The symbolic inputs, in a list. AttributeError while there is no graph."""
        return list(self._graph("inputs").input_symbols)

    @property
    def outputs(self) -> list[SymbolicTensor]:
        """The symbolic outputs, in a list. AttributeError while there is no graph."""
        return list(self._graph("outputs").output_symbols)

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs' layers."""
        return self._graph("input_names").input_names

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs' layers."""
        return self._graph("output_names").output_names

    @property
    def input(self) -> Any:
        """The symbolic inputs in the structure that was given."""
        network = self._ends("input")
        return super().input if network is None else _alone(network.inputs)

    @property
    def output(self) -> Any:
        """The symbolic outputs in the structure that was given."""
        network = self._ends("output")
        return super().output if network is None else _alone(network.outputs)

    @property
    def input_shape(self) -> Any:
        """The shapes of the inputs, with the batch, in their structure."""
        network = self._ends("input_shape")
        return super().input_shape if network is None else tree_map(lambda s: s.shape, _alone(network.inputs))

    @property
    def output_shape(self) -> Any:
        """The shapes of the outputs, with the batch, in their structure."""
        network = self._ends("output_shape")
        return super().output_shape if network is None else tree_map(lambda s: s.shape, _alone(network.outputs))

    def _ledger_nodes(self) -> list[Node]:
        inside = [] if self._network is None else self._network.nodes
        return [*inside, *self.inbound_nodes]

    # --- copies ----------------------------------------------------------------------------------------------

    def _state_to_copy(self) -> dict[str, Any]:
        """As a layer's; the graph as a recipe, which the copy repeats with its own layers."""
        state = super()._state_to_copy()
        state.update(_run=None, _direct=None, _network=None, _kept_symbols=(), _kept_graph=self._graph_to_copy())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = state.pop("_kept_graph")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._graph_from_copy(kept)

    def _graph_to_copy(self) -> Any:
        """The graph as plain data: a recipe, and the operations that it names."""
        if self._network is None:
            return None
        return self._network.recipe(), {op.name: _to_copy(op) for op in self._network.operations}

    def _graph_from_copy(self, kept: Any) -> None:
        if kept is None:
            return
        recipe, operations = kept
        inputs, outputs = recipe.repeat({name: _from_copy(name, op) for name, op in operations.items()})
        self.__dict__["_network"] = Network(inputs, outputs, f"Model {self.name!r}")
        self._code()


class _MaskOf:
    """A model's `compute_mask` as a function in the graph of another."""

    __name__ = "mask"

    def __init__(self, model: Graphed):
        self.model = model

    def __call__(self, inputs: Any) -> Any:
        with collect_losses():
            return self.model.compute_mask(inputs)


def _probe() -> None:
    """Where shapes to try come from."""


def _alone(structure: Any) -> Any:
    return structure[0] if isinstance(structure, (list, tuple)) and len(structure) == 1 else structure


def _map_shapes(function: Callable[[tuple[int | None, ...]], Any], value: Any) -> Any:
    """The structure with `function` applied to each shape, a tuple or list of sizes."""
    if isinstance(value, dict):
        return {key: _map_shapes(function, item) for key, item in value.items()}
    if all(item is None or isinstance(item, int) for item in value):
        return function(tuple(value))
    return [_map_shapes(function, item) for item in value]


def _to_copy(operation: Any) -> Any:
    """An operation as copies keep it: an input layer by its arguments, a recorded function by the function."""
    if isinstance(operation, InputLayer):
        return operation.get_config()
    return operation.function if isinstance(operation, FunctionCall) else operation


def _from_copy(name: str, kept: Any) -> Any:
    if isinstance(kept, dict):
        return InputLayer.from_config(kept)
    return kept if isinstance(kept, Layer) else FunctionCall(kept, name)


def _flat_children(module: nn.Module) -> Iterator[nn.Module]:
    """The children, those in lists and dicts of modules too."""
    for child in module.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _flat_children(child)
        else:
            yield child
