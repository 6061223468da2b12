"""What `layer.name` finds, and what `layer.name = value` does."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fanin.dtypes import as_policy
from fanin.layers.base.variables import set_trainable
from fanin.weights import CONSTRAINTS, REGULARIZERS

# Names of the contract, which an attribute of the same name would be hidden by.
_RESERVED = frozenset(
    ["input", "output", "input_shape", "output_shape", "input_mask", "output_mask", "graph", "losses", "updates",
     "weights", "variables", "trainable_weights", "non_trainable_weights", "trainable_variables",
     "non_trainable_variables", "scope_name", "outbound_nodes", "dtype", "compute_dtype", "variable_dtype"]
)  # fmt: skip

# Plain values of every layer, which a module would take the place of.
_VALUES = frozenset(["name", "built", "training", "input_spec", "inbound_nodes"])


class Attributes(nn.Module):
    """The part of a layer that looks after its attributes: weights, aliases, names that the contract keeps."""

    _aliases: dict[str, str]
    _unnamed: set[str]
    _own_lists: frozenset[str] = frozenset()  # attributes that may list modules without owning them

    def _adopt_lists(self) -> None:
        """Make lists and dicts of modules, `self.blocks = [Dense(8), Dense(8)]`, part of the module, as Keras does.

        They stand among the modules where the attribute was set, so that weights and layers have Keras's order.
        """
        order = {name: (place, 1) for place, name in enumerate(self._modules)}
        set_after: dict[str, int] = self.__dict__.get("_set_after", {})
        adopted = False
        for name, value in list(self.__dict__.items()):
            is_own = name in self._own_lists or name == "_modules" or isinstance(value, nn.Module)
            part = None if is_own else _as_module(value)
            if part is not None:
                del self.__dict__[name]
                setattr(self, name, part)
                order[name] = (set_after.get(name, len(order)), 0)
                adopted = True
        for name in sorted(order, key=lambda name: order[name]) if adopted else ():
            self._modules[name] = self._modules.pop(name)

    def __getattr__(self, name: str) -> Any:
        """Names of weights, and the true reason why a property has no value: nn.Module would replace it."""
        try:  # the most frequent question first, and without a further call
            return self.__dict__["_parameters"][name]
        except KeyError:
            pass
        aliases = self.__dict__.get("_aliases")
        if aliases and name in aliases:
            return getattr(self, aliases[name])
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(type(self), name, None)
            if isinstance(found, property) and found.fget is not None:
                return found.fget(self)
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        """As nn.Module's; a weight made by `add_weight` is not registered twice, and names of the contract are kept."""
        if name in _RESERVED or _hides(type(self), name, value):
            raise AttributeError(
                f"{name!r} is a part of the layer contract and cannot be set on layer {self.__dict__.get('name')!r}; "
                f"use another attribute name, such as {name + '_layer'!r}."
            )
        if name == "dtype_policy":
            self._set_policy(as_policy(value))
            return
        if isinstance(value, torch.Tensor) and "_aliases" in self.__dict__:
            owned = _owner_name(self, value)
            if owned is not None and owned != name:
                self._rename(owned, name)
                return
        if isinstance(value, nn.Module) and not self.__dict__.get("_trainable", True):
            set_trainable(value, False)  # a part of a frozen layer
        elif type(value) in (list, tuple, dict) and "_modules" in self.__dict__:
            self.__dict__.setdefault("_set_after", {})[name] = len(self._modules)  # for `_adopt_lists`
        super().__setattr__(name, value)

    def _rename(self, owned: str, name: str) -> None:
        """`self.w = self.add_weight(...)`: an unnamed weight takes the attribute's name, a named one gets an alias."""
        if owned not in self._unnamed:
            self._aliases[name] = owned
            return
        self._unnamed.discard(owned)
        places = self.__dict__.get("_weight_places", [])
        places[:] = [name if place == owned else place for place in places]
        for table in (self._parameters, self._buffers):
            if owned in table:
                table[name] = table.pop(owned)  # type: ignore[assignment]
        for kind in (REGULARIZERS, CONSTRAINTS):
            facts = self.__dict__.get(kind, {})
            if owned in facts:
                facts[name] = facts.pop(owned)


def _hides(kind: type, name: str, value: Any) -> bool:
    """Whether reading a name would not find what is set: a property or method of the library's classes has it.

    A module is kept beside the attributes of an object, so that any of its class comes first.
    """
    if name in _VALUES:
        return isinstance(value, nn.Module)
    found = getattr(kind, name, None)
    is_kept = isinstance(value, nn.Module) or (isinstance(found, property) and found.fset is None)
    if found is None or not is_kept:
        return False
    owner = next((base for base in kind.__mro__ if name in base.__dict__), kind)
    return owner.__module__.partition(".")[0] in ("fanin", "torch")


def _as_module(value: Any) -> nn.Module | None:
    """A list or dict of modules, or of such lists and dicts, as a module; None for anything else."""
    if isinstance(value, nn.Module):
        return value
    named = type(value) is dict
    if not (named or type(value) in (list, tuple)) or not value:
        return None
    parts = {}
    for key, part in value.items() if named else enumerate(value):
        found = _as_module(part)
        if found is None or (named and not isinstance(key, str)):
            return None
        parts[str(key)] = found
    return nn.ModuleDict(parts) if named else nn.ModuleList(parts.values())


def _owner_name(layer: nn.Module, value: torch.Tensor) -> str | None:
    for table in (layer._parameters, layer._buffers):
        for name, tensor in table.items():
            if tensor is value:
                return name
    return None
