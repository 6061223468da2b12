"""The table of a model's layers."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from torch import nn

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
    for operation in model._operations:
        kind = type(getattr(operation, "module", operation)).__name__
        table.add_row(
            f"{operation.name} ({kind})", _shape(operation), f"{_count(operation):,}" if operation.built else "?"
        )
    target = io.StringIO() if print_fn is not None else None
    console = Console(file=target, width=line_length)
    console.print(table)
    for line in _totals(model):
        console.print(line, highlight=False)
    if print_fn is not None and target is not None:
        print_fn(target.getvalue().rstrip("\n"))


def _shape(operation: Any) -> str:
    try:
        return str(operation.output_shape)
    except (AttributeError, RuntimeError):
        return "?"


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
