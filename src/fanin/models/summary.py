"""The table of a model's layers."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from fanin.graph.node import FunctionCall, Node, function_name
from fanin.layers.base.variables import named_weights
from fanin.layers.module import TorchModule
from fanin.models.graphed import Graphed


def print_summary(
    model: Any,
    line_length: int | None = None,
    print_fn: Callable[[str], None] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> None:
    """Print layers, output shapes and numbers of weights, and what they add up to.

    Args:
        model: a model with `layers`.
        line_length: the width in characters; default the terminal's.
        print_fn: gets the text instead of standard output.
        expand_nested: whether the layers of models within the model are listed too, indented.
        show_trainable: whether there is a column that says which layers train.
        layer_range: regular expressions (first, last) of the names between which layers are listed; default all.

    Raises ValueError for a `layer_range` that is not two expressions, or that no layer's name matches.
    """
    from rich.console import Console
    from rich.table import Table

    rows = list(_rows(model, model._listed(), expand_nested))
    shown = rows if layer_range is None else list(_rows(model, _between(model, layer_range), expand_nested))
    table = Table(title=f'Model: "{model.name}"', title_justify="left", title_style="bold")
    columns = ["Layer (type)", "Output Shape", "Param #"]
    columns += ["Connected to"] if _branches(rows) else []
    columns += ["Trains"] if show_trainable else []
    for title in columns:
        table.add_column(title, justify="right" if title == "Param #" else "left")
    for row in shown:
        table.add_row(*(row.cell(title) for title in columns))
    target = io.StringIO() if print_fn is not None else None
    console = Console(file=target, width=line_length)
    console.print(table)
    for line in _totals(model):
        console.print(line, highlight=False)
    if print_fn is not None and target is not None:
        print_fn(target.getvalue().rstrip("\n"))


@dataclass
class _Row:
    """One layer or recorded function of a model.

    Attributes:
        operation: the layer or function.
        inside: ids of the calls that belong to the model.
        depth: how many models it is inside of, below the one that is printed.
    """

    operation: Any
    inside: set[int]
    depth: int

    def cell(self, title: str) -> str:
        """What stands under that title."""
        operation = self.operation
        if title == "Layer (type)":
            return f"{'  ' * self.depth}{_name(operation)} ({_kind(operation)})"
        if title == "Output Shape":
            return self._shape()
        if title == "Param #":
            return _size(operation)
        if title == "Trains":
            return "yes" if any(p.requires_grad for p in _parameters(operation)) else "-"
        return ", ".join(self.sources) or "-"

    @property
    def _calls(self) -> list[Node]:
        return [node for node in getattr(self.operation, "inbound_nodes", ()) if id(node) in self.inside]

    @property
    def sources(self) -> list[str]:
        """What its calls in this model read: names, each once."""
        found = [symbol.layer.name for node in self._calls for symbol in node.input_tensors]
        return list(dict.fromkeys(found))

    def _shape(self) -> str:
        """The output shapes of its calls in this model; else what the layer itself says."""
        shapes = [symbol.shape for node in self._calls for symbol in node.output_tensors]
        if shapes:
            return ", ".join(dict.fromkeys(map(str, shapes)))
        try:
            return str(self.operation.output_shape)
        except (AttributeError, RuntimeError):
            return "?"


def _rows(model: Any, operations: list[Any], expand_nested: bool, depth: int = 0) -> Iterator[_Row]:
    inside = {id(node) for node in model._ledger_nodes()}
    for operation in operations:
        yield _Row(operation, inside, depth)
        if expand_nested and isinstance(operation, Graphed):
            yield from _rows(operation, operation._listed(), expand_nested, depth + 1)


def _between(model: Any, layer_range: Sequence[str]) -> list[Any]:
    """From the first layer that one end of the range matches to the last that the other does, in either order."""
    if isinstance(layer_range, str) or len(layer_range) != 2 or not all(isinstance(end, str) for end in layer_range):
        raise ValueError(f"layer_range: expected two names or regular expressions, found {layer_range!r}.")
    operations: list[Any] = model._listed()
    begin, end = ([i for i, op in enumerate(operations) if _matches(which, _name(op))] for which in layer_range)
    if not begin or not end:
        names = ", ".join(map(_name, operations))
        raise ValueError(f"layer_range: {layer_range[bool(begin)]!r} matches no layer. The layers: {names}.")
    if min(begin) > max(end):
        begin, end = end, begin
    return operations[min(begin) : max(end) + 1]


def _matches(expression: str, name: str) -> bool:
    try:
        return re.match(expression, name) is not None
    except re.error as error:
        raise ValueError(f"layer_range: {expression!r} is no regular expression: {error}.") from None


def _branches(rows: list[_Row]) -> bool:
    """Whether any layer reads something else than what stands above it."""
    outermost = [row for row in rows if row.depth == 0]
    above: list[list[str]] = [[], *([_name(row.operation)] for row in outermost[:-1])]
    return any(row.sources and row.sources != before for row, before in zip(outermost, above, strict=True))


def _name(operation: Any) -> str:
    return getattr(operation, "name", None) or type(operation).__name__.lower()


def _kind(operation: Any) -> str:
    if isinstance(operation, FunctionCall):
        return function_name(operation.function)
    return type(operation.module if isinstance(operation, TorchModule) else operation).__name__


def _parameters(operation: Any) -> Iterator[nn.Parameter]:
    return operation.parameters() if isinstance(operation, nn.Module) else iter(())


def _size(operation: Any) -> str:
    if not isinstance(operation, nn.Module):
        return "0"
    return f"{_count(operation):,}" if getattr(operation, "built", True) else "?"


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for _, weight in named_weights(module))


def _totals(model: Any) -> list[str]:
    trains = {id(weight) for weight in model.trainable_weights}
    weights = model.weights
    total = sum(w.numel() for w in weights)
    trained = sum(w.numel() for w in weights if id(w) in trains)
    size = sum(w.numel() * w.element_size() for w in weights)
    if not model.built:
        return ["The input shape is not known yet: call the model, or begin it with fanin.Input(shape)."]
    return [
        f"Total params: {total:,} ({_bytes(size)})",
        f"Trainable params: {trained:,}",
        f"Non-trainable params: {total - trained:,}",
    ]


def _bytes(count: int) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1024:
            return f"{count:.2f} {unit}" if unit != "B" else f"{count} B"
        count /= 1024  # type: ignore[assignment]
    return f"{count:.2f} GB"
