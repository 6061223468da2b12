"""What every module with a kernel scheme can do with adapters: our layers, and `torch.nn.Linear` once it has some."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fanin.kernels import Adapter, KernelScheme, LowRank, Slot
from fanin.kernels.rows import Blocks, rows_of
from fanin.layers.base.frozen import forget, hold, release
from fanin.layers.base.scope import current
from fanin.weights import CONSTRAINTS, REGULARIZERS, get_fact, set_fact

INACTIVE = " inactive"  # a reason to be held; no adapter can have this name
_KEPT = "{}_before_merge"  # the name of the buffer with a base's tensor


class Adapted(nn.Module):
    """The part of a module that knows its adapters. The scheme is a value: each change puts another in its place."""

    scheme: KernelScheme

    @property
    def saved_as(self) -> str:
        """The name of the class in files."""
        return type(self).__name__

    def _sizes(self) -> tuple[int, int]:
        """I and U."""
        raise NotImplementedError

    def _make(self, slot: Slot) -> None:
        """Make the Parameter of a slot."""
        raise NotImplementedError

    def _draw(self, slot: Slot) -> None:
        """Fill the Parameter of a slot anew."""
        raise NotImplementedError

    def _called(self) -> str:
        """The module in messages."""
        raise NotImplementedError

    @property
    def adapters(self) -> dict[str, Adapter]:
        """Name -> numbers of each adapter, in the order of their weights."""
        scheme = self.scheme
        return {adapter.name: adapter for adapter in scheme.adapters} if isinstance(scheme, LowRank) else {}

    @property
    def active_adapter(self) -> str | None:
        """The name of the adapter that acts, or None."""
        return self.scheme.active if isinstance(self.scheme, LowRank) else None

    @property
    def in_training(self) -> bool:
        """Whether the call in progress trains: `training=` at the call, then the enclosing call's, then the mode."""
        scope = current.scope
        return self.training if scope is None or scope.training is None else scope.training

    def train(self, mode: bool = True) -> Any:
        """As every module's; in train mode the adapters of an open `fanin.adapters.rows` train."""
        super().train(mode)
        if mode and Blocks.count:
            rows_of(self)
        return self

    # --- for `fanin.adapters` -----------------------------------------------------------------------------------------

    def _low_rank(self) -> LowRank:
        return self.scheme if isinstance(self.scheme, LowRank) else LowRank(self.scheme)

    def _base_names(self) -> list[str]:
        """The names of the tensors that the adapters stand in for."""
        return [slot.name for slot in self._low_rank().base.slots(*self._sizes())]

    def _base_tensor(self, name: str) -> torch.Tensor:
        """One of them, as it was before a merge."""
        kept = self._buffers.get(_KEPT.format(name))
        tensor: torch.Tensor = getattr(self, name) if kept is None else kept
        return tensor

    def _pair_names(self) -> list[str]:
        """The names of all adapters' tensors."""
        return [tensor for name in self.adapters for tensor in self._low_rank().pair_names(name)]

    def _firmly_held(self) -> list[str]:
        """What setting `trainable` does not thaw: what adapters stand in for, and adapters that do not act."""
        if not isinstance(self.scheme, LowRank):
            return []
        scheme = self.scheme
        idle = (name for name in self.adapters if name != scheme.active)
        return [*self._base_names(), *(tensor for name in idle for tensor in scheme.pair_names(name))]

    def _why_no_adapter(self, name: str | None = None) -> str | None:
        """What stands against an adapter of that name, if anything does."""
        part = self.scheme.part
        if get_fact(self, CONSTRAINTS, part) is not None:
            return (
                f"there is a constraint on the {part}, which the sum with an adapter would not keep: take it away first"
            )
        if not all(tensor in self._parameters or tensor in self._buffers for tensor in self._base_names()):
            return f"the {part} is computed (parametrized or pruned), so it cannot be held: make it plain first"
        if isinstance(self.scheme, LowRank) and self.scheme.merged is not None:
            return f"the adapter {self.scheme.merged!r} is merged: unmerge it, or remove it"
        if name is not None and self._low_rank().has(name):
            return f"there is an adapter {name!r} already: remove it first, or use another name"
        taken = [] if name is None else [each for each in self._low_rank().pair_names(name) if hasattr(self, each)]
        return f"the name {taken[0]!r} is taken" if taken else None

    def _attach(self, adapter: Adapter) -> None:
        """Make an adapter's tensors and hold the base. It does not act yet. ValueError, nothing changed, if not."""
        why = self._why_no_adapter(adapter.name)
        if why is not None:
            raise ValueError(f"{self._called()} takes no adapter {adapter.name!r}: {why}.")
        scheme = self._low_rank().plus(adapter)
        slots = scheme.pair(adapter, *self._sizes())
        try:
            with torch.inference_mode(False), torch.enable_grad():
                for slot in slots:
                    self._make(slot)
        except BaseException:
            self._drop(slot.name for slot in slots)
            raise
        self.scheme = scheme
        hold(self, self._base_names(), adapter.name)
        hold(self, [slot.name for slot in slots], INACTIVE)

    def _detach(self, name: str) -> None:
        """Take an adapter and its tensors away. What it held is released by `_release`."""
        scheme = self._low_rank()
        left = scheme.minus(name)
        self._drop(scheme.pair_names(name))
        self.scheme = left
        release(self, name)

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._parameters.pop(name, None)
            set_fact(self, REGULARIZERS, name, None)
            set_fact(self, CONSTRAINTS, name, None)
            forget(self, [name])

    def _activate(self, name: str | None) -> None:
        """Let one adapter act and train, or none. ValueError, nothing changed, while one is merged."""
        scheme = self._low_rank()
        if scheme.merged is not None:
            raise ValueError(f"{self._called()}: the adapter {scheme.merged!r} is merged: unmerge it, or remove it.")
        chosen = replace(scheme, active=name)
        for each in scheme.adapters:
            tensors = scheme.pair_names(each.name)
            if each.name == name:
                release(self, INACTIVE, tensors)
            else:
                hold(self, tensors, INACTIVE)
        self.scheme = chosen

    # --- merging ------------------------------------------------------------------------------------------------------

    def _merge(self, name: str) -> None:
        """Add an adapter's scale A @ B to the base's tensors, in place. The base before it is kept in buffers."""
        scheme = self._low_rank()
        with torch.inference_mode(False), torch.no_grad(), _full_width(getattr(self, scheme.part)):
            values = scheme.base.pack(replace(scheme, active=name).dense(self))
            kept = {part: getattr(self, part).detach().clone() for part in values}
            for part, value in values.items():
                self.register_buffer(_KEPT.format(part), kept[part], persistent=False)
                getattr(self, part).copy_(value)
        self.scheme = replace(scheme, active=None, merged=name)
        hold(self, self._pair_names(), INACTIVE)

    def _keeps_base(self) -> bool:
        """Whether the base before a merge is there."""
        return _KEPT.format(self.scheme.part) in self._buffers

    def _unmerge(self) -> None:
        """Put the base back, bit for bit. The adapter that was merged does not act then."""
        scheme = self._low_rank()
        with torch.inference_mode(False), torch.no_grad():
            for part in self._base_names():
                kept = self._buffers[_KEPT.format(part)]
                assert kept is not None
                getattr(self, part).copy_(kept)
        self._drop_base()
        self.scheme = replace(scheme, merged=None)

    def _drop_base(self) -> None:
        """Free the copy of the base: what is merged stays so."""
        for part in self._base_names():
            self._buffers.pop(_KEPT.format(part), None)
            self._non_persistent_buffers_set.discard(_KEPT.format(part))


def _full_width(tensor: torch.Tensor) -> Any:
    return torch.autocast(tensor.device.type, enabled=False)
