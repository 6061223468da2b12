"""One recorded call: which layer (or torch function), on which inputs, giving which outputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from fanin.config import unique_name
from fanin.graph.infer import Spec, infer
from fanin.graph.symbolic import SymbolicTensor, symbols_in
from fanin.graph.tree import leaves, like_inputs, tree_map


class Node:
    """One call of a layer on symbolic tensors, or the entry of an input (then without inbound layers).

    Attributes:
        args, kwargs: the arguments of the call, with the symbolic tensors in place.
        index: the position among the layer's `inbound_nodes`.
        input_tensors: the symbolic tensors among the arguments.
        returned: how many outputs the call returns; further ones are losses and values of updates.
        output_masks: for each output its symbolic mask, or None.
    """

    __slots__ = (
        "__weakref__", "_layer", "_noted", "_outputs", "_specs", "_structure", "args", "index", "input_tensors",
        "kwargs", "output_masks", "returned",
    )  # fmt: skip

    def __init__(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], specs: Any):
        self._layer = weakref.ref(layer)
        self.args = tree_map(_itself, args)  # the caller may go on to change its lists
        self.kwargs = tree_map(_itself, kwargs)
        self.input_tensors = symbols_in((args, kwargs))
        self.output_masks: list[SymbolicTensor | None] = []
        self._noted: list[tuple[str, Any, list[Any] | None, object]] = []
        self._specs = [leaf for leaf in leaves(specs) if isinstance(leaf, Spec)]
        self.returned = len(self._specs)
        positions = iter(range(self.returned))
        self._structure = tree_map(lambda leaf: _Slot(next(positions)) if isinstance(leaf, Spec) else leaf, specs)
        self._outputs: dict[int, weakref.ref[SymbolicTensor]] = {}
        self.index = len(layer.inbound_nodes)
        layer.inbound_nodes.append(self)
        for source in self.inbound_layers:
            source._outbound.append(weakref.ref(self))

    @staticmethod
    def record(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`record` below, for symbolic tensors, which know their node but not this file."""
        return record(function, args, kwargs)

    @property
    def layer(self) -> Any:
        """The layer or recorded function that was called, or None once it is gone."""
        return self._layer()

    @property
    def inbound_layers(self) -> list[Any]:
        """The layers that the inputs came from, each once, in order."""
        return list(dict.fromkeys(symbol.layer for symbol in self.input_tensors))

    @property
    def output_tensors(self) -> list[SymbolicTensor]:
        """The outputs, made anew if nobody kept them."""
        return [self.symbol(index) for index in range(self.returned)]

    @property
    def paths(self) -> list[tuple[Any, ...]]:
        """Where each output stands in what the call returns: () for a single tensor, (1, "a") for value[1]["a"]."""
        found: list[tuple[Any, ...]] = [()] * self.returned

        def walk(value: Any, path: tuple[Any, ...]) -> None:
            if isinstance(value, _Slot):
                found[value.index] = path
            elif isinstance(value, (list, tuple)):
                for place, item in enumerate(value):
                    walk(item, (*path, place))
            elif isinstance(value, dict):
                for key, item in value.items():
                    walk(item, (*path, key))

        walk(self._structure, ())
        return found

    @property
    def outputs(self) -> Any:
        """The outputs in the structure that the call returned."""
        return tree_map(self._resolved, self._structure)

    def symbol(self, index: int) -> SymbolicTensor:
        """Output `index`; the same object as long as somebody keeps it."""
        found = self._outputs.get(index)
        symbol = found() if found is not None else None
        if symbol is None:
            layer, spec = self.layer, self._specs[index]
            name = layer.name if self.returned == 1 and index == 0 else f"{layer.name}_{index}"
            symbol = SymbolicTensor(spec.shape, spec.dtype, name, layer, self, index)
            self._outputs[index] = weakref.ref(symbol)
        return symbol

    def note(self, kind: str, value: Any, inputs: list[Any] | None, owner: object) -> None:
        """Note a loss or an update ("losses", "updates") that the call adds, what it depends on, and who added it.

        Specs inside `value` become further outputs of the call. Their symbols are made when asked for: a node that kept
        them would keep its own layer.
        """

        def extra(leaf: Any) -> Any:
            if not isinstance(leaf, Spec):
                return leaf
            self._specs.append(leaf)
            return _Slot(len(self._specs) - 1)

        self._noted.append((kind, tree_map(extra, value), inputs, owner))

    def noted(self, kind: str) -> list[tuple[Any, list[Any] | None, object]]:
        """(symbolic loss or update, inputs it depends on or None, who added it) for each that the call adds."""
        return [(tree_map(self._resolved, value), *rest) for known, value, *rest in self._noted if known == kind]

    def _resolved(self, leaf: Any) -> Any:
        return self.symbol(leaf.index) if isinstance(leaf, _Slot) else leaf

    @property
    def inputs(self) -> Any:
        """The input tensor, or the list of them; the entry of an input is its own."""
        return like_inputs(self.sources)

    @property
    def sources(self) -> list[SymbolicTensor]:
        """The input tensors; for the entry of an input, its output."""
        return self.input_tensors or self.output_tensors

    def __repr__(self) -> str:
        layer = self.layer
        sources = ", ".join(source.name for source in self.inbound_layers)
        return f"<Node {self.index} of {layer.name if layer is not None else 'a dropped layer'!r} from [{sources}]>"


def _itself(leaf: Any) -> Any:
    return leaf


class _Slot:
    """Where output `index` stands in the returned structure."""

    __slots__ = ("index",)

    def __init__(self, index: int):
        self.index = index


class FunctionCall:
    """A torch function recorded on symbolic tensors; in the graph it stands where a layer would.

    Attributes:
        function: the torch function or method.
        name: unique, from the function's name.
    """

    __slots__ = ("__weakref__", "_outbound", "function", "inbound_nodes", "name")

    def __init__(self, function: Callable[..., Any], name: str | None = None):
        self.function = function
        self.name = name or unique_name(function_name(function).strip("_"))
        self.inbound_nodes: list[Node] = []
        self._outbound: list[weakref.ref[Node]] = []

    @property
    def outbound_nodes(self) -> list[Node]:
        """The calls, still alive, that took this one's output."""
        return alive(self._outbound)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """function(*args, **kwargs)."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<FunctionCall {self.name!r}>"


def alive(references: Iterable[weakref.ref[Node]]) -> list[Node]:
    """The nodes behind weak references whose layer still lives."""
    nodes = (reference() for reference in references)
    return [node for node in nodes if node is not None and node.layer is not None]


def function_name(function: Callable[..., Any]) -> str:
    """A short name: "relu", "add"."""
    return getattr(function, "__name__", type(function).__name__)


def _from_numpy(leaf: Any) -> Any:
    """numpy's arrays as tensors and its scalars as numbers, which torch functions take."""
    if isinstance(leaf, np.generic):
        return leaf.item()
    return torch.tensor(leaf) if isinstance(leaf, np.ndarray) else leaf


def record(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], call_name: str | None = None) -> Any:
    """Make a node of a torch function called on symbolic tensors, and return its symbolic result.

    `call_name` is the name of the call in the graph; by default the function's, made unique.

    Raises TypeError where recording would freeze something that should stay alive: a Parameter captured from a
    module, or the train or eval mode of dropout and batch norm.
    """
    name = function_name(function)
    args, kwargs = tree_map(_from_numpy, args), tree_map(_from_numpy, kwargs)
    if any(isinstance(leaf, nn.Parameter) for leaf in leaves((args, kwargs))):
        raise TypeError(
            f"torch.{name} on a symbolic tensor took a Parameter: the graph would keep it as a constant. "
            "Add the module to a fanin.Sequential, or wrap it as fanin.layers.TorchModule(module), and call that."
        )
    if any(word in name for word in ("dropout", "batch_norm", "instance_norm")):
        raise TypeError(
            f"torch.{name} on a symbolic tensor would freeze today's train or eval mode into the graph. "
            "Add the module to a fanin.Sequential, or wrap it as fanin.layers.TorchModule(module), and call that."
        )
    try:
        specs = infer(function, args, kwargs)
    except Exception as error:
        shapes = ", ".join(f"{symbol.name}: {symbol.shape}" for symbol in symbols_in((args, kwargs)))
        raise ValueError(f"torch.{name} cannot take symbolic tensors of these shapes ({shapes}): {error}") from error
    call = FunctionCall(function, call_name)
    return Node(call, args, kwargs, specs).outputs


def ancestors(symbols: Iterable[SymbolicTensor]) -> list[Node]:
    """All nodes that lead to `symbols`, each after those it depends on. No recursion, however deep the graph."""
    return traverse(symbols)[0]


def traverse(symbols: Iterable[SymbolicTensor]) -> tuple[list[Node], list[Node]]:
    """The nodes that lead to `symbols`, depth first, twice: in an order that runs, and in the order of first sight."""
    order: list[Node] = []
    seen: dict[int, Node] = {}
    done: set[int] = set()
    stack: list[tuple[Node, bool]] = [(symbol.node, False) for symbol in reversed(list(symbols))]
    while stack:
        node, ready = stack.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            order.append(node)
            continue
        seen.setdefault(id(node), node)
        stack.append((node, True))
        stack.extend((symbol.node, False) for symbol in reversed(node.input_tensors) if id(symbol.node) not in done)
    return order, list(seen.values())


def depends_on(symbol: Any, sources: Iterable[Any]) -> bool:
    """Whether `symbol` is one of `sources` or was computed from one. Other values only match themselves."""
    sources = list(sources)
    if any(symbol is source for source in sources):
        return True
    if not isinstance(symbol, SymbolicTensor):
        return False
    stack, seen = list(symbol.node.input_tensors), {id(symbol.node)}
    while stack:
        symbol = stack.pop()
        if any(symbol is source for source in sources):
            return True
        if id(symbol.node) not in seen:
            seen.add(id(symbol.node))
            stack.extend(symbol.node.input_tensors)
    return False


def input_symbol(layer: Any, shape: tuple[int | None, ...], dtype: torch.dtype) -> SymbolicTensor:
    """The output of an input layer: a node without inbound layers."""
    return Node(layer, (), {}, Spec(shape, dtype)).symbol(0)
