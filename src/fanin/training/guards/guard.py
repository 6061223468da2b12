"""Whether a module is still what it was when its step was compiled.

A program holds what Python had at that time: a dropout rate, an activation, which weights train. Every assignment of
another value is found: to attributes of modules, of their regularizers and constraints, of the loss, of objects of
one's own that are attributes, to places in lists, dicts and sets that are, and to what lies within these (see
`within.py`). `__slots__`, classes that are no longer those of any object, and numbers in numpy arrays are not seen.

Before every step, `stands` compares whole tuples, in C; `difference` then says in words what it was. Outputs depend on
less: `holds_for_outputs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter, is_, itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fanin.layers.base.layer import Layer
from fanin.training.guards.attribute_guard import AttributeGuard, ByOwner
from fanin.training.guards.container_guard import KINDS, ContainerGuard, Place
from fanin.training.guards.reachable import REGISTRIES, class_attributes, containers_within, functions_of, helpers_of
from fanin.training.guards.references import References, attributes_of
from fanin.weights import CONSTRAINTS, REGULARIZERS

# What calls change by themselves, or what says nothing about the computation. `training` is part of a program's key.
_RESTLESS = {
    "training",
    "history",
    "stop_training",
    "stop_evaluating",
    "stop_predicting",
    "_initial_epoch",
    "_initial_batch",
    "_trainer",
    "_loss_tracker",
    "_compiled_with",
    "_run",
    "_noted_then",
    "_kept_symbols",
    "_direct",
    "_direct_size",
    "_weight_places",
    "_chain",
    "_prediction",
}
# What outputs do not depend on, unless code of one's own reads it.
_ABOUT_TRAINING = {
    *("_trainable", "activity_regularizer", REGULARIZERS, CONSTRAINTS, "_kernel_regularizer", "_bias_regularizer"),
    *("_kernel_constraint", "_bias_constraint", "_embeddings_regularizer", "_embeddings_constraint", "_lock"),
}
_ABOUT_THE_PAST = {"name", "built", "inbound_nodes", "batch_input_shape", "kernel_initializer", "bias_initializer"}
# Dicts and lists that are looked at in another way, or change only when parts do.
_LOOKED_AT = {*REGISTRIES, "_given", "_operations", "_taken"}
_TRAINING = attrgetter("training")
_VALUE = attrgetter("cell_contents")


def has_hooks(weight: Tensor) -> bool:
    """Whether functions were registered to be called with the gradient of a weight."""
    return bool(weight._backward_hooks) or bool(getattr(weight, "_post_accumulate_grad_hooks", None))


def _gradient(weight: Tensor) -> tuple[bool, bool]:
    """Whether a weight trains, and whether functions see its gradient."""
    return weight.requires_grad, has_hooks(weight)


# The same in C for weights that never had hooks; a dict of hooks that is there may be empty.
_TRAINED_WITHOUT_HOOKS = attrgetter("requires_grad", "_backward_hooks", "_post_accumulate_grad_hooks")


def _address(weight: Tensor) -> int | None:
    """Where a weight lies; None for one that is not made yet, 0 for one in several pieces, as sparse tensors are."""
    if is_lazy(weight):
        return None
    return weight.data_ptr() if weight.layout == torch.strided else 0


class Guard:
    """A module as it was: its parts, their attributes, and where their weights lie.

    Args:
        module: the module.
        beside: other objects whose attributes calls depend on, such as losses.
    """

    def __init__(self, module: nn.Module, beside: Iterable[Any] = ()):
        skipped = (
            _RESTLESS
            | _ABOUT_THE_PAST
            | {name for name in vars(Layer(name="plain")) if name.startswith("_")} - {"_trainable"}
        )
        self._parts = list(module.modules())
        self._types = [type(part) for part in self._parts]
        dicts = [part.__dict__ for part in self._parts]
        in_dicts = all("training" in one for one in dicts)  # not so in TorchScript's modules
        self._mode: Any = itemgetter("training") if in_dicts else _TRAINING
        self._with_modes: list[Any] = dicts if in_dicts else self._parts
        self._helpers = helpers_of(self._parts, beside)
        read = References([*self._parts, *self._helpers, *functions_of(self._parts), *beside])
        self._attributes = [
            (attributes_of(one), name, value)
            for one in (*self._parts, *self._helpers)
            for name, value in attributes_of(one).items()
            if name not in skipped and read.reads(one, name)
        ]
        self._skipped = skipped
        self._names_of = [(one, own := attributes_of(one), {*own}) for one in (*self._parts, *self._helpers)]
        self._cells = read.cells
        held = [value for *_, value in (*read.places, *read.cells) if issubclass(type(value), nn.Module)]
        known = {*map(id, self._parts)}  # their modes are in the key of each program
        self._hidden = [part for one in held for part in one.modules() if id(part) not in known]  # such as a teacher's
        self._hidden_modes = [*map(_TRAINING, self._hidden)]
        self._attributes += read.places
        inside: list[Place] = [({}, name, value) for _, name, value in self._cells]
        containers = [one for one in (*self._attributes, *inside) if issubclass(type(one[2]), KINDS)]
        self._containers = ContainerGuard([*containers_within(one for one in containers if one[1] not in _LOOKED_AT)])
        shared = class_attributes((*self._parts, *self._helpers))
        self._shared = [place for place in shared if read.is_named(place[1])]
        self._reads, self._is_named = read.reads, read.is_named  # the names of code of one's own
        registries = [part.__dict__.get(name) for part in self._parts for name in REGISTRIES]
        self._sizes = [(registry, len(registry)) for registry in registries if registry is not None]
        self._weights = [
            (
                registry,
                name,
                weight,
                weight.requires_grad,
                has_hooks(weight),
                _address(weight),
            )
            for part in self._parts
            for registry in (part._parameters, part._buffers)
            for name, weight in registry.items()
            if weight is not None
        ]
        self._members = [
            (registry, name, member)
            for part in self._parts
            for registry in (part._modules, part.__dict__.get(REGULARIZERS, {}), part.__dict__.get(CONSTRAINTS, {}))
            for name, member in registry.items()
        ]
        self._empty_places = [
            (registry, name, None)
            for part in self._parts
            for registry in (part._parameters, part._buffers)
            for name, weight in registry.items()
            if weight is None
        ]
        self._rules = [
            (part.__dict__, kind, part.__dict__.get(kind))
            for part in self._parts
            for kind in (REGULARIZERS, CONSTRAINTS)
        ]
        self._arrange()

    def _arrange(self) -> None:
        """The same facts in tuples, for `stands`."""
        outputs: ByOwner = {}
        training: ByOwner = {}
        self._absent = []
        single = []  # what equals others without being them
        for own, name, value in (*self._attributes, *self._empty_places, *self._members, *self._rules):
            if name not in own:
                self._absent.append((own, name))
            elif issubclass(type(value), (Tensor, np.ndarray)):
                single.append((own, name, value))
            else:
                is_read = self._is_named(name) or self._is_named(name.strip("_"))  # by its property
                group = training if name in _ABOUT_TRAINING and not is_read else outputs
                group.setdefault(id(own), (own, {}))[1][name] = value
        for kind, name, value in self._shared:
            outputs.setdefault(id(kind), (vars(kind), {}))[1][name] = value
        self._for_outputs, self._for_training = AttributeGuard(outputs), AttributeGuard(training)
        self._dicts = [own for _, own, _ in self._names_of]
        self._counts = [*map(len, self._dicts)]
        single += [(own, name, weight) for own, name, weight, *_ in self._weights]
        self._owners, self._names, self._values = (
            ([*column] for column in zip(*single, strict=True)) if single else [[]] * 3
        )
        self._empty = [registry for registry, size in self._sizes if not size]
        filled = [(registry, size) for registry, size in self._sizes if size]
        self._filled, self._lengths = [registry for registry, _ in filled], [size for _, size in filled]
        self._closures, self._closed = [cell for cell, *_ in self._cells], [value for *_, value in self._cells]
        tensors = [weight for _, _, weight, *_ in self._weights]
        self._lazy = [weight for weight in tensors if is_lazy(weight)]
        self._placed = [weight for weight in tensors if not is_lazy(weight) and weight.layout == torch.strided]
        self._addresses = [*map(Tensor.data_ptr, self._placed)]
        self._numbers, self._gapless = [*map(Tensor.numel, self._placed)], [*map(Tensor.is_contiguous, self._placed)]
        self._gradients = [*map(_gradient, tensors)]
        self._tensors = tensors
        self._unhooked = [(trains, None, None) for trains, _ in self._gradients]

    def holds(self) -> bool:
        """Whether everything is as it was."""
        if not self.holds_for_outputs() or not self._for_training.holds() or not self.memory_is_the_same():
            return False
        is_unhooked = [*map(_TRAINED_WITHOUT_HOOKS, self._tensors)] == self._unhooked
        return is_unhooked or [*map(_gradient, self._tensors)] == self._gradients

    def holds_for_outputs(self) -> bool:
        """Whether all that outputs in eval mode depend on is as it was."""
        try:
            if not self._for_outputs.holds():
                return False
            for own, name in self._absent:
                if name in own:
                    return False
            return (
                [*map(type, self._parts)] == self._types
                and not any(self._empty)
                and [*map(len, self._filled)] == self._lengths
                and all(map(is_, map(dict.get, self._owners, self._names), self._values))
                and [*map(Tensor.data_ptr, self._placed)] == self._addresses
                and [*map(Tensor.numel, self._placed)] == self._numbers  # `weight.data = weight.data[:5]`
                and ([*map(len, self._dicts)] == self._counts or self._has_no_new_names())
                and self._containers.holds()
                and (not self._hidden or [*map(_TRAINING, self._hidden)] == self._hidden_modes)
                and (not self._closures or all(map(is_, map(_VALUE, self._closures), self._closed)))
                and (not self._lazy or all(map(is_lazy, self._lazy)))
            )
        except Exception:  # something is gone
            return False

    def memory_is_the_same(self) -> bool:
        """Whether no weight is turned on its own memory, `weight.data = weight.data.t()`: too rare for every call."""
        return [*map(Tensor.is_contiguous, self._placed)] == self._gapless

    def _has_no_new_names(self) -> bool:
        """Whether no object has an attribute that it did not have and that calls may read."""
        if any(self._reads(one, name) for one, _, name in self._new_names()):
            return False
        self._counts = [*map(len, self._dicts)]
        return True

    def difference(self) -> str | None:
        """What is not as it was, in words; None if there is nothing."""
        for owners in (self._attributes, self._empty_places, self._members, self._rules):
            for own, name, value in owners:
                if own.get(name) is not value:
                    return f"the attribute {name!r} of {self._owner(own)}"
        for _, own, name in self._new_names():
            return f"the attribute {name!r} of {self._owner(own)}"
        for kind, name, value in self._shared:
            if vars(kind).get(name) is not value:
                return f"the attribute {name!r} of the class {kind.__name__}"
        for cell, name, value in self._cells:
            if cell.cell_contents is not value:
                return f"the variable {name!r} of a closure"
        for own, name, _ in self._containers.moved():
            return f"what is in the attribute {name!r} of {self._owner(own)}"
        for part, kind in zip(self._parts, self._types, strict=True):
            if type(part) is not kind:
                return f"the class of a {kind.__name__}"
        for registry, size in self._sizes:
            if len(registry) != size:
                return f"what belongs to {self._owner(registry)}"
        for registry, name, weight, trains, hooked, address in self._weights:
            is_same = registry.get(name) is weight and weight.requires_grad is trains and has_hooks(weight) is hooked
            if not is_same or (is_lazy(weight) if address is not None else not is_lazy(weight)):
                return f"the weight {name!r} of {self._owner(registry)}"
            if address is not None and _address(weight) != address:
                return f"the memory of the weight {name!r} of {self._owner(registry)}"
        return None

    def _owner(self, registry: Any) -> str:
        """The part that has this dict or list, in words."""
        for path, part in self._parts[0].named_modules():
            own = part.__dict__
            if own is registry or any(value is registry for value in own.values()):
                name = getattr(part, "name", path)
                return f"layer {name!r} ({type(part).__name__})" if name else f"the module ({type(part).__name__})"
        if "__builtins__" in registry:
            return f"the Python module {registry.get('__name__')!r}"
        return next((type(one).__name__ for one in self._helpers if attributes_of(one) is registry), "an object")

    def _new_names(self) -> Iterator[tuple[Any, dict[str, Any], str]]:
        """Attributes that objects did not have."""
        for one, own, names in self._names_of:
            for name in own.keys() - names - self._skipped:
                is_note_of_a_layer = name[0] == "_" and "_token" in own and not isinstance(own[name], Tensor)
                if not is_note_of_a_layer:
                    yield one, own, name

    def values(self) -> list[Any]:
        """What attributes and variables hold."""
        return [*(value for *_, value in self._attributes), *(value for *_, value in self._cells)]

    def tensors(self) -> list[Tensor]:
        """The tensors that are neither parameters nor buffers, but that attributes and variables hold."""
        return [value for value in self.values() if issubclass(type(value), Tensor)]

    def restore(self) -> None:
        """Undo what a call assigned to attributes."""
        for own, name, value in (*self._attributes, *self._empty_places):
            if own.get(name) is not value:
                own[name] = value
        for _, own, name in [*self._new_names()]:
            del own[name]
        for kind, name, value in self._shared:
            if vars(kind).get(name) is not value:
                setattr(kind, name, value)
        for cell, _, value in self._cells:
            cell.cell_contents = value
        self._containers.restore()

    def modes(self) -> tuple[bool, ...]:
        """Which parts are in train mode."""
        return tuple(map(self._mode, self._with_modes))

    def trains(self) -> bool:
        """Whether any part is in train mode."""
        return True in map(self._mode, self._with_modes)
