"""The losses and updates of a layer: penalties on weights, and what was added by hand or in calls."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from fanin import regularizers
from fanin.graph.node import Node, depends_on
from fanin.graph.symbolic import SymbolicTensor, is_symbolic
from fanin.graph.tree import leaves
from fanin.layers.base.scope import Entry, Record, current

_Kind = str  # "losses" or "updates"


class Noted:
    """How often layers were given, outside calls, what calls have to add: models then look again at their layers."""

    count = 0


class Ledger(nn.Module):
    """The part of a layer that keeps losses and updates.

    Three sources: the regularizers of weights (unconditional, worked out when asked), what was added outside any call
    (kept for good), and what calls add: one set for each symbolic call, and that of the last outermost real call.
    """

    name: str
    trainable: bool
    inbound_nodes: list[Node]
    _token: object
    _kept_losses: list[Entry]
    _kept_updates: list[Entry]
    _record: Record | None

    def add_loss(self, losses: Any, inputs: Any = None) -> None:
        """Add a scalar loss, or a list of them.

        Args:
            losses: tensors, or functions without arguments that are called whenever `losses` is read. Outside a call
                give a function: a tensor stays at the value that it has now.
            inputs: what the losses depend on, one tensor or a list; None makes them unconditional.
        """
        values = [*losses] if isinstance(losses, (list, tuple)) else [losses]
        record = self._running_record()
        if record is not None:
            self._note(record.losses, values, inputs)
            return
        for value in values:
            if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                warnings.warn(
                    f"Layer {self.name!r}: a loss added outside a call keeps the value it has now. "
                    "Add a function without arguments instead: add_loss(lambda: ...).",
                    stacklevel=2,
                )
        self._keep(self._kept_losses, values, inputs)

    def add_update(self, updates: Any, inputs: Any = None) -> None:
        """Add an update, or a list of them, to run after each training step.

        Args:
            updates: a function without arguments, a pair (weight, value), or any object of yours.
            inputs: what the updates depend on; None makes them unconditional.

        A frozen layer adds none in a call.
        """
        values = [*updates] if isinstance(updates, list) else [updates]
        record = self._running_record()
        if record is not None and not self.trainable and not current.scope.trial:  # type: ignore[union-attr]
            return
        if record is None:
            self._keep(self._kept_updates, values, inputs)
        else:
            self._note(record.updates, values, inputs)

    def _running_record(self) -> Record | None:
        """The record of the call in progress, if it is this layer's or that of one around it; not in `build`, but for
        a trial of its own call there."""
        scope = current.scope
        if scope is None or scope.layer is None or ("_building" in self.__dict__ and scope.layer is not self):
            return None
        inside = scope.layer is self or any(module is self for module in scope.layer.modules())
        return scope.record if inside else None

    def _keep(self, target: list[Entry], values: list[Any], inputs: Any) -> None:
        self._note(target, values, inputs)
        Noted.count += is_symbolic(values)

    def _note(self, target: list[Entry], values: list[Any], inputs: Any) -> None:
        given = None if inputs is None else list(leaves(inputs))
        target.extend(Entry(value, self._token, given) for value in values)

    # --- reading ---------------------------------------------------------------------------------------------

    @property
    def losses(self) -> list[Any]:
        """Penalties of weights once each, losses added for good, and those of the calls.

        The calls are all symbolic ones, until the layer is called on real tensors: then the values of the last
        outermost real call stand for them. They carry gradients: a plain loop adds `sum(layer.losses)` to its own.
        After `fit` and `evaluate` they are those of the last batch, without gradients. A frozen weight gives none.
        """
        return [*regularizers.penalties(self), *self._entries("losses")]

    @property
    def updates(self) -> list[Any]:
        """The updates in training order; none of layers that are frozen."""
        return self._entries("updates")

    def get_losses_for(self, inputs: Any) -> list[Any]:
        """The losses that depend on `inputs` (a tensor or a list); None gives the unconditional ones."""
        if inputs is None:
            return [*regularizers.penalties(self), *self._entries("losses", conditional=False)]
        return self._entries_for("losses", inputs)

    def get_updates_for(self, inputs: Any) -> list[Any]:
        """The updates that depend on `inputs` (a tensor or a list); None gives the unconditional ones."""
        return self._entries("updates", conditional=False) if inputs is None else self._entries_for("updates", inputs)

    def _entries(self, kind: _Kind, conditional: bool = True) -> list[Any]:
        """The values kept for good, then those of the last real call, or else of the symbolic calls."""
        called = self._symbolic_entries(kind) if self._record is None else self._real_entries(kind)
        kept = self._kept_entries(kind)
        if self._record is not None and kind == "losses":
            kept = [entry for entry in kept if not is_symbolic(entry.value)]  # the real call had their values
        entries = [entry for entry in kept + called if conditional or entry.inputs is None]
        return [_value(entry, kind) for entry in entries]

    def _entries_for(self, kind: _Kind, inputs: Any) -> list[Any]:
        """The values of whatever depends on `inputs`."""
        sources = list(leaves(inputs))
        entries = self._kept_entries(kind) + self._symbolic_entries(kind) + self._real_entries(kind)
        return [
            _value(entry, kind)
            for entry in entries
            if entry.inputs is not None and any(depends_on(given, sources) for given in entry.inputs)
        ]

    def _ledgers(self, kind: _Kind = "losses") -> list[Ledger]:
        """This layer and those inside it; for updates, those that are not frozen."""
        found = [module for module in self.modules() if isinstance(module, Ledger)]
        return found if kind == "losses" else [ledger for ledger in found if ledger.trainable]

    def _kept_entries(self, kind: _Kind) -> list[Entry]:
        return [entry for ledger in self._ledgers(kind) for entry in getattr(ledger, f"_kept_{kind}")]

    def _symbolic_entries(self, kind: _Kind) -> list[Entry]:
        noted = [
            Entry(value, owner, given) for node in self._ledger_nodes() for value, given, owner in node.noted(kind)
        ]
        return self._own(noted, kind)

    def _real_entries(self, kind: _Kind) -> list[Entry]:
        return [] if self._record is None else self._own(getattr(self._record, kind), kind)

    def _own(self, entries: list[Entry], kind: _Kind) -> list[Entry]:
        tokens = {ledger._token for ledger in self._ledgers(kind)}
        return [entry for entry in entries if entry.owner in tokens]

    def kept_updates(self) -> list[Any]:
        """The updates that were added outside any call; none of layers that are frozen."""
        return [entry.value for entry in self._kept_entries("updates")]

    def _ledger_nodes(self) -> list[Node]:
        """The symbolic calls whose losses and updates are this layer's."""
        return list(self.inbound_nodes)


def _value(entry: Entry, kind: _Kind) -> Any:
    function = callable(entry.value) and not isinstance(entry.value, (torch.Tensor, SymbolicTensor))
    return entry.value() if kind == "losses" and function else entry.value


def run_updates(updates: list[Any]) -> None:
    """Run updates in their order: call functions, write the values of (weight, value) pairs; others are not ours."""
    with torch.no_grad():
        for update in updates:
            if isinstance(update, tuple) and len(update) == 2 and isinstance(update[0], torch.Tensor):
                weight, value = update
                if isinstance(value, (torch.Tensor, int, float)):
                    weight.copy_(torch.as_tensor(value))
            elif callable(update) and not isinstance(update, torch.Tensor):
                update()
