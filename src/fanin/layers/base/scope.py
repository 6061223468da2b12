"""What the layers of one call share: whether it trains, and the losses and updates that it collects.

The outermost fanin call opens a record; calls inside it write to the same one. The record stays readable on every layer
of the call (`layer.losses`) until that layer's next call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from fanin.graph.tree import leaves


class Entry:
    """A loss or an update: its value, who added it, and the inputs it depends on (None: unconditional)."""

    __slots__ = ("inputs", "owner", "value")

    def __init__(self, value: Any, owner: object, inputs: list[Any] | None):
        self.value = value
        self.owner = owner
        self.inputs = inputs


class Record:
    """The losses and updates of one outermost call, or of a `collect_losses` block."""

    __slots__ = ("losses", "updates")

    def __init__(self) -> None:
        self.losses: list[Entry] = []
        self.updates: list[Entry] = []

    def forget_transformed(self) -> None:
        """Drop everything if it belongs to a functorch transform or to a trace: such values are dead outside it."""
        values = [leaf for entry in self.losses + self.updates for leaf in leaves(entry.value)]
        if any(isinstance(value, FakeTensor) or torch._C._functorch.is_functorch_wrapped_tensor(value)
               for value in values if isinstance(value, torch.Tensor)):  # fmt: skip
            self.losses.clear()
            self.updates.clear()


@contextmanager
def records_kept(module: nn.Module) -> Iterator[None]:
    """After the block, layers show the losses and updates of the calls before it: those inside it were traced."""
    before = [(vars(part), vars(part)["_record"]) for part in module.modules() if "_record" in vars(part)]
    try:
        yield
    finally:
        for own, record in before:
            own["_record"] = record


class CallScope:
    """One layer's call in progress; `trial` where it only runs on fake tensors to learn a shape."""

    __slots__ = ("layer", "record", "training", "trial")

    def __init__(self, layer: Any, record: Record, training: bool | None, trial: bool = False):
        self.layer = layer
        self.record = record
        self.training = training
        self.trial = trial


class _Current(threading.local):
    scope: CallScope | None = None


current = _Current()


@contextmanager
def collect_losses() -> Iterator[Record]:
    """Keep the losses of all calls inside the block, not only those of the last one.

    A model called twice in one training step loses none::

        with fanin.collect_losses():
            real, fake = critic(x), critic(generator(z))
            loss = fake.mean() - real.mean() + sum(critic.losses)

    Yields the record: `record.losses` lists what the calls added (not the penalties on weights).
    """
    previous = current.scope
    record = previous.record if previous is not None else Record()
    current.scope = CallScope(None, record, previous.training if previous is not None else None)
    try:
        yield record
    finally:
        current.scope = previous
