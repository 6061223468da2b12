"""The calls of a graph as plain data, to be repeated with other layers: so graphs are copied, cloned and loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fanin.graph.node import FunctionCall, Node, record
from fanin.graph.symbolic import SymbolicTensor, symbols_in
from fanin.graph.tree import tree_map


@dataclass(frozen=True)
class Ref:
    """Output `tensor` of call number `call`."""

    call: int
    tensor: int


@dataclass(frozen=True)
class Recipe:
    """A graph without its layers.

    Attributes:
        calls: (name of the operation, args, kwargs) in an order that runs, with a `Ref` for each symbolic tensor; an
            input has no arguments.
        inputs, outputs: structures of `Ref`.
    """

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]
    inputs: Any
    outputs: Any

    @classmethod
    def of(cls, nodes: Iterable[Node], inputs: Any, outputs: Any) -> Recipe:
        """What `nodes`, each after those it depends on, did between two structures of symbolic tensors."""
        nodes = list(nodes)
        positions = {id(node): place for place, node in enumerate(nodes)}

        def refer(leaf: Any) -> Any:
            return Ref(positions[id(leaf.node)], leaf.index) if isinstance(leaf, SymbolicTensor) else leaf

        calls = [(node.layer.name, tree_map(refer, node.args), tree_map(refer, node.kwargs)) for node in nodes]
        return cls(calls, tree_map(refer, inputs), tree_map(refer, outputs))

    def repeat(self, operations: Mapping[str, Any]) -> tuple[Any, Any]:
        """Make all calls anew, with these operations by name; returns the structures of new inputs and outputs.

        An input layer's call is its one node. A recorded function is recorded again, under its name.
        """
        made: list[Node] = []

        def fill(leaf: Any) -> Any:
            return made[leaf.call].symbol(leaf.tensor) if isinstance(leaf, Ref) else leaf

        # Symbols live as long as somebody holds them: here, until the outputs do.
        held: list[Any] = []
        for name, args, kwargs in self.calls:
            operation = operations[name]
            if not args and not kwargs:
                made.append(operation.inbound_nodes[0])
            elif isinstance(operation, FunctionCall):
                held.append(record(operation.function, tree_map(fill, args), tree_map(fill, kwargs), name))
                made.append(symbols_in(held[-1])[0].node)
            else:
                held.append(operation(*tree_map(fill, args), **tree_map(fill, kwargs)))
                made.append(operation.inbound_nodes[-1])
        return tree_map(fill, self.inputs), tree_map(fill, self.outputs)
