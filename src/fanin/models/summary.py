"""The table of a model's layers."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from torch import nn

from fanin.graph.node import FunctionCall, Node, function_name
from fanin.layers.module import TorchModule
from fanin.layers.variables import named_weights


def print_summary(model: Any, line_length: int | None = None, print_fn: Callable[[str], None] | None = None) -> None:
    """Print layers, output shapes and numbers of weights, and what they add up to.

    Args:
        model: a model with `layers`.
        line_length: the width in characters; default the terminal's.
        print_fn: gets the text instead of standard output.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f'Model: "{model.name}"', title_justify="left", title_style="bold")
    for title, side in (("Layer (type)", "left"), ("Output Shape", "left"), ("Param #", "right")):
        table.add_column(title, justify=side)  # type: ignore[arg-type]
    operations = model._listed()
    inside = {id(node) for node in model._ledger_nodes()}
    sources = [_sources(operation, inside) for operation in operations]
    chain: list[list[str]] = [[], *([_name(operation)] for operation in operations[:-1])]
    branches = any(found and found != before for found, before in zip(sources, chain, strict=True))
    if branches:
        table.add_column("Connected to")
    for operation, found in zip(operations, sources, strict=True):
        cells = [f"{_name(operation)} ({_kind(operation)})", _shape(operation, inside), _size(operation)]
        table.add_row(*cells, *([", ".join(found) or "-"] if branches else []))
    target = io.StringIO() if print_fn is not None else None
    console = Console(file=target, width=line_length)
    console.print(table)
    for line in _totals(model):
        console.print(line, highlight=False)
    if print_fn is not None and target is not None:
        print_fn(target.getvalue().rstrip("\n"))


def _name(operation: Any) -> str:
    return getattr(operation, "name", None) or type(operation).__name__.lower()


def _kind(operation: Any) -> str:
    if isinstance(operation, FunctionCall):
        return function_name(operation.function)
    return type(operation.module if isinstance(operation, TorchModule) else operation).__name__


def _calls(operation: Any, inside: set[int]) -> list[Node]:
    return [node for node in getattr(operation, "inbound_nodes", ()) if id(node) in inside]


def _sources(operation: Any, inside: set[int]) -> list[str]:
    """What an operation's calls in this model read: names, each once."""
    found = [symbol.layer.name for node in _calls(operation, inside) for symbol in node.input_tensors]
    return list(dict.fromkeys(found))


def _shape(operation: Any, inside: set[int]) -> str:
    """The output shapes of the calls in this model; else what the layer itself says."""
    shapes = [symbol.shape for node in _calls(operation, inside) for symbol in node.output_tensors]
    if shapes:
        return ", ".join(dict.fromkeys(map(str, shapes)))
    try:
        return str(operation.output_shape)
    except (AttributeError, RuntimeError):
        return "?"


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
