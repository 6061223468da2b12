"""The calls between the inputs and the outputs of a model: checked, ordered, and turned into code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fanin.graph.code import compile_calls
from fanin.graph.infer import Spec, infer
from fanin.graph.node import FunctionCall, Node, input_symbol, traverse
from fanin.graph.recipe import Recipe
from fanin.graph.symbolic import SymbolicTensor, symbols_in
from fanin.graph.tree import leaves_by_key, tree_map
from fanin.layers.base.layer import Layer, in_transform
from fanin.masks import get_mask, with_mask

Run = Callable[..., Any]
Bind = Callable[[Any], Any]


class Network:
    """A graph with a beginning and an end.

    Args:
        inputs: what `fanin.Input` returned: one, or a nested list, tuple or dict.
        outputs: symbolic tensors computed from them, likewise.
        who: the model in messages: "Model 'mine'".

    Attributes:
        inputs, outputs: the structures as given.
        input_symbols, output_symbols: their leaves.
        nodes: the calls that lead to the outputs, each after those it depends on, and the inputs that none needs.
        operations: the layers and recorded functions of these calls, in Keras's order, which files depend on: those
            farthest from the outputs first.

    Raises ValueError for an input that is no Input or comes twice, for an output that is no symbolic tensor or depends
    on an Input that is not among the inputs, and for two layers of one name.
    """

    def __init__(self, inputs: Any, outputs: Any, who: str):
        self.who = who
        self.inputs, self.outputs = inputs, outputs
        self.input_symbols = list(leaves_by_key(inputs))
        self.output_symbols = list(leaves_by_key(outputs))
        self._check_ends()
        order, seen = traverse(self.output_symbols)
        needed = set(map(id, order))
        unused = [symbol.node for symbol in self.input_symbols if id(symbol.node) not in needed]
        self.nodes: list[Node] = [*order, *unused]
        self._check_sources()
        self.operations: list[Any] = _by_depth(order, [*unused, *seen])
        self._check_names()

    # --- checks ----------------------------------------------------------------------------------------------

    def _check_ends(self) -> None:
        if not self.input_symbols or not self.output_symbols:
            raise ValueError(f"{self.who} needs at least one input and one output.")
        for name, symbols in (("inputs", self.input_symbols), ("outputs", self.output_symbols)):
            for symbol in symbols:
                if not isinstance(symbol, SymbolicTensor):
                    raise ValueError(f"{self.who}: {name} must be symbolic tensors, found {symbol!r}.")
        for symbol in self.input_symbols:
            if symbol.node.input_tensors:
                raise ValueError(
                    f"{self.who}: inputs must come from fanin.Input, found the output of {symbol.layer.name!r}. "
                    "For a model that begins there, make a new Input of that shape and call the layers on it."
                )
        names = [symbol.layer.name for symbol in self.input_symbols]
        if len(set(map(id, self.input_symbols))) != len(names):
            raise ValueError(f"{self.who}: an input comes twice among the inputs {names}.")

    def _check_sources(self) -> None:
        given = {id(symbol.node) for symbol in self.input_symbols}
        missing = [node for node in self.nodes if not node.input_tensors and id(node) not in given]
        if missing:
            readers = [n for n in self.nodes if any(symbol.node is missing[0] for symbol in n.input_tensors)]
            reader = [*readers, missing[0]][0]
            raise ValueError(
                f"{self.who}: the graph is disconnected. The outputs depend on the Input {missing[0].layer.name!r} "
                f"(read by {reader.layer.name!r}), which is not among the inputs {self.input_names}."
            )

    def _check_names(self) -> None:
        twice = [name for name, count in Counter(operation.name for operation in self.operations).items() if count > 1]
        if twice:
            raise ValueError(f"{self.who}: two layers are named {twice[0]!r}; names in a model must differ.")

    # --- what is inside --------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        """The layers, input layers too, without the recorded functions."""
        return [operation for operation in self.operations if isinstance(operation, Layer)]

    @property
    def input_names(self) -> list[str]:
        """The name of each input's layer."""
        return [symbol.layer.name for symbol in self.input_symbols]

    @property
    def output_names(self) -> list[str]:
        """The name of each output's layer."""
        return [symbol.layer.name for symbol in self.output_symbols]

    @property
    def returned(self) -> Any:
        """What a call returns: the outputs in their structure, a list of one as the one, as in Keras."""
        return self.outputs[0] if isinstance(self.outputs, (list, tuple)) and len(self.outputs) == 1 else self.outputs

    def recipe(self) -> Recipe:
        """The calls as plain data."""
        return Recipe.of(self.nodes, self.inputs, self.outputs)

    def compile(self, name: str, bind: Bind = lambda operation: operation, more: Sequence[Any] = ()) -> Run:
        """The graph as one function of the values of `input_symbols`; see `compile_calls`.

        With `more`, structures of symbolic tensors that the inputs lead to, it returns the outputs and a list of what
        these came to.
        """
        if not more:
            return compile_calls(name, self.input_symbols, self.nodes, self.returned, bind)
        order, _ = traverse([*self.output_symbols, *symbols_in(list(more))])
        return compile_calls(name, self.input_symbols, order, (self.returned, list(more)), bind)

    def leads_to(self, symbols: list[SymbolicTensor]) -> bool:
        """Whether the inputs are enough to compute `symbols`, through calls of this graph and recorded functions."""
        inside = {id(node) for node in self.nodes}
        nodes = traverse(symbols)[0]
        return all(
            id(node) in inside or (node.input_tensors and isinstance(node.layer, FunctionCall)) for node in nodes
        )

    # --- a call ----------------------------------------------------------------------------------------------

    def arrange(self, given: Any) -> list[Any]:
        """The values of `input_symbols` from what a call was given.

        Lists match by position, dicts by key, and a dict given for a list by the names of the inputs; further keys are
        not looked at. (B,) fits an Input((1,)), and (B, 1) an Input(()). Other shapes: ValueError naming the input.
        """
        found: list[tuple[SymbolicTensor, Any]] = []
        self._match(self.inputs, given, found)
        values = {id(symbol): self._fit(symbol, value) for symbol, value in found}
        return [values[id(symbol)] for symbol in self.input_symbols]

    def _match(self, expected: Any, given: Any, found: list[tuple[SymbolicTensor, Any]]) -> None:
        if isinstance(expected, SymbolicTensor):
            if isinstance(given, dict) and expected.layer.name in given:
                given = given[expected.layer.name]
            if isinstance(given, (list, tuple)) and len(given) == 1:
                given = given[0]
            if not isinstance(given, (torch.Tensor, SymbolicTensor)):
                raise self._mismatch(given)
            found.append((expected, given))
            return
        if isinstance(expected, dict):
            if not isinstance(given, dict) or any(key not in given for key in expected):
                raise self._mismatch(given)
            pairs = [(expected[key], given[key]) for key in expected]
        else:
            if isinstance(given, dict) and all(isinstance(part, SymbolicTensor) for part in expected):
                names = [symbol.layer.name for symbol in expected]
                if any(name not in given for name in names):
                    raise self._mismatch(given)
                given = [given[name] for name in names]
            parts = given if isinstance(given, (list, tuple)) else [given]
            if len(parts) != len(expected):
                raise self._mismatch(given)
            pairs = list(zip(expected, parts, strict=True))
        for part, value in pairs:
            self._match(part, value, found)

    def _mismatch(self, given: Any) -> ValueError:
        expected = tree_map(lambda symbol: _Shown(f"{symbol.layer.name!r} {symbol.shape}"), self.inputs)
        shown = tree_map(lambda leaf: _Shown(f"{tuple(leaf.shape)}" if hasattr(leaf, "shape") else repr(leaf)), given)
        return ValueError(f"{self.who} takes {expected}, found {shown}.")

    def _fit(self, symbol: SymbolicTensor, value: Any) -> Any:
        wanted, shape = symbol.shape, tuple(value.shape)
        if len(shape) != len(wanted) and not in_transform():
            if len(shape) == len(wanted) - 1 and wanted[-1] == 1:
                value = _keeping_mask(value, value.unsqueeze(-1))
            elif len(shape) == len(wanted) + 1 and shape[-1] == 1:
                value = _keeping_mask(value, value.squeeze(-1))
            shape = tuple(value.shape)
        sizes = zip(shape[1:], wanted[1:], strict=False)
        if not in_transform() and (len(shape) != len(wanted) or any(None not in pair and pair[0] != pair[1]
                                                                     for pair in sizes)):  # fmt: skip
            raise ValueError(f"{self.who}: input {symbol.layer.name!r} takes shape {wanted}, found {shape}.")
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not symbol.dtype.is_floating_point:
            return _keeping_mask(value, value.to(symbol.dtype))
        return value

    def specs(self, given: Any, run: Run) -> Any:
        """The shapes and dtypes of the outputs, in their structure, for symbolic inputs; `run` is what `compile` gave.

        For the model's own shapes they are known; else the code is tried on tensors without memory.
        """
        values = self.arrange(given)
        own = zip(values, self.input_symbols, strict=True)
        if all(value.shape == symbol.shape for value, symbol in own):
            return tree_map(lambda symbol: Spec(symbol.shape, symbol.dtype), self.returned)
        source = FunctionCall(_source, "source")
        symbols = [input_symbol(source, v.shape, s.dtype) for v, s in zip(values, self.input_symbols, strict=True)]
        return infer(run, tuple(symbols), {})


def _source() -> None:
    """Where the symbols of a trial come from."""


class _Shown(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _keeping_mask(before: Any, after: Any) -> Any:
    mask = None if isinstance(before, SymbolicTensor) else get_mask(before)
    return after if mask is None else with_mask(after, mask)


def _by_depth(order: list[Node], seen: list[Node]) -> list[Any]:
    """The operations of `order`, farthest from the outputs first, those of one depth in the order of first sight."""
    depths: dict[int, int] = {}  # of nodes
    deepest: dict[int, int] = {}  # of operations: a shared one is as deep as its deepest call
    for node in reversed(order):
        depth = max(depths.get(id(node), 0), deepest.get(id(node.layer), 0))
        deepest[id(node.layer)] = depth
        for symbol in node.input_tensors:
            depths[id(symbol.node)] = max(depth + 1, depths.get(id(symbol.node), 0))
    operations = list({id(node.layer): node.layer for node in seen}.values())
    return sorted(operations, key=lambda operation: -deepest.get(id(operation), 0))
