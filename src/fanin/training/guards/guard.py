"""The guard of a module's programs: whether the module is still what it was when they were compiled.

A program has the Python state of its trace baked in: a dropout rate, an activation, which weights train. The guard
detects every assignment of another value: to attributes of modules, of their regularizers and constraints, of the loss
and of the user's objects, and to items of lists, dicts and sets in these (see `reachable.py`). It does not detect
changes of `__slots__`, of classes without an object, and of numbers in numpy arrays.

Before every step, `holds` compares whole tuples, in C; `difference` then describes what has changed. Outputs in eval
mode depend on less: `holds_for_outputs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter, is_, itemgetter
from typing import Any

import numpy as np
from torch import Tensor, nn

from fanin.layers.base.layer import Layer
from fanin.training.guards.attribute_guard import AttributeGuard, ByOwner
from fanin.training.guards.container_guard import CONTAINERS, Binding, ContainerGuard
from fanin.training.guards.reachable import REGISTRIES, class_attributes, containers_within, functions_of, helpers_of
from fanin.training.guards.references import References, attributes_of
from fanin.training.guards.weight_guard import WeightGuard
from fanin.weights import CONSTRAINTS, REGULARIZERS

# Attributes that calls change by themselves, or that do not affect results. `training` is part of a program's key.
_VOLATILE = {
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
# Attributes that outputs do not depend on, unless the user's code reads them.
_TRAINING_ONLY = {
    *("_trainable", "activity_regularizer", REGULARIZERS, CONSTRAINTS, "_kernel_regularizer", "_bias_regularizer"),
    *("_kernel_constraint", "_bias_constraint", "_embeddings_regularizer", "_embeddings_constraint", "_lock"),
}
_DESCRIPTIVE = {"name", "built", "inbound_nodes", "batch_input_shape", "kernel_initializer", "bias_initializer"}
# Dicts and lists that are compared in another way, or change only when parts do.
_GUARDED_ELSEWHERE = {*REGISTRIES, "_given", "_operations", "_taken"}
_TRAINING = attrgetter("training")
_VALUE = attrgetter("cell_contents")


class Guard:
    """A snapshot of a module to compare with: its parts, their attributes, and the addresses of their weights.

    Args:
        module: the module.
        extra_objects: other objects whose attributes calls depend on, such as losses.
    """

    def __init__(self, module: nn.Module, extra_objects: Iterable[Any] = ()):
        skipped = (
            _VOLATILE
            | _DESCRIPTIVE
            | {name for name in vars(Layer(name="plain")) if name.startswith("_")} - {"_trainable"}
        )
        self._parts = list(module.modules())
        self._types = [type(part) for part in self._parts]
        dicts = [part.__dict__ for part in self._parts]
        has_plain_attributes = all("training" in one for one in dicts)  # not so in TorchScript's modules
        self._mode_of: Any = itemgetter("training") if has_plain_attributes else _TRAINING
        self._mode_owners: list[Any] = dicts if has_plain_attributes else self._parts
        self._helpers = helpers_of(self._parts, extra_objects)
        references = References([*self._parts, *self._helpers, *functions_of(self._parts), *extra_objects])
        self._attributes = [
            (attributes_of(one), name, value)
            for one in (*self._parts, *self._helpers)
            for name, value in attributes_of(one).items()
            if name not in skipped and references.reads(one, name)
        ]
        self._skipped = skipped
        self._known_names = [(one, own := attributes_of(one), {*own}) for one in (*self._parts, *self._helpers)]
        self._cells = references.cells
        modules = [
            value for *_, value in (*references.bindings, *references.cells) if issubclass(type(value), nn.Module)
        ]
        known = {*map(id, self._parts)}  # their modes are in the key of each program
        # Modules that variables hold, such as a teacher.
        self._unregistered = [part for one in modules for part in one.modules() if id(part) not in known]
        self._unregistered_modes = [*map(_TRAINING, self._unregistered)]
        self._attributes += references.bindings
        cell_bindings: list[Binding] = [({}, name, value) for _, name, value in self._cells]
        containers = [one for one in (*self._attributes, *cell_bindings) if issubclass(type(one[2]), CONTAINERS)]
        self._containers = ContainerGuard(
            [*containers_within(one for one in containers if one[1] not in _GUARDED_ELSEWHERE)]
        )
        found = class_attributes((*self._parts, *self._helpers))
        self._class_attributes = [binding for binding in found if references.is_named(binding[1])]
        self._reads, self._is_named = references.reads, references.is_named
        registries = [part.__dict__.get(name) for part in self._parts for name in REGISTRIES]
        self._registry_sizes = [(registry, len(registry)) for registry in registries if registry is not None]
        self._weights = WeightGuard(self._parts)
        self._members = [
            (registry, name, member)
            for part in self._parts
            for registry in (part._modules, part.__dict__.get(REGULARIZERS, {}), part.__dict__.get(CONSTRAINTS, {}))
            for name, member in registry.items()
        ]
        self._none_entries = [
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
        self._prepare_comparisons()

    def _prepare_comparisons(self) -> None:
        """Arrange the snapshot in lists and tuples, for `holds`."""
        outputs: ByOwner = {}
        training: ByOwner = {}
        self._absent = []
        by_identity = []  # values whose == does not give one bool
        for own, name, value in (*self._attributes, *self._none_entries, *self._members, *self._rules):
            if name not in own:
                self._absent.append((own, name))
            elif issubclass(type(value), (Tensor, np.ndarray)):
                by_identity.append((own, name, value))
            else:
                is_read = self._is_named(name) or self._is_named(name.strip("_"))  # or the property in front of it
                group = training if name in _TRAINING_ONLY and not is_read else outputs
                group.setdefault(id(own), (own, {}))[1][name] = value
        for kind, name, value in self._class_attributes:
            outputs.setdefault(id(kind), (vars(kind), {}))[1][name] = value
        self._for_outputs, self._for_training = AttributeGuard(outputs), AttributeGuard(training)
        self._dicts = [own for _, own, _ in self._known_names]
        self._counts = [*map(len, self._dicts)]
        self._owners, self._names, self._values = (
            ([*column] for column in zip(*by_identity, strict=True)) if by_identity else [[]] * 3
        )
        self._empty = [registry for registry, size in self._registry_sizes if not size]
        filled = [(registry, size) for registry, size in self._registry_sizes if size]
        self._filled, self._lengths = [registry for registry, _ in filled], [size for _, size in filled]
        self._cell_objects, self._cell_values = [cell for cell, *_ in self._cells], [value for *_, value in self._cells]

    def holds(self) -> bool:
        """Whether nothing that a step depends on has changed."""
        return (
            self.holds_for_outputs()
            and self._for_training.holds()
            and self._weights.strides_hold()
            and self._weights.gradients_hold()
        )

    def holds_for_outputs(self) -> bool:
        """Whether nothing that outputs in eval mode depend on has changed."""
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
                and self._weights.holds()
                and (not self._values or all(map(is_, map(dict.get, self._owners, self._names), self._values)))
                and ([*map(len, self._dicts)] == self._counts or self._has_no_new_names())
                and self._containers.holds()
                and (not self._unregistered or [*map(_TRAINING, self._unregistered)] == self._unregistered_modes)
                and (not self._cell_objects or all(map(is_, map(_VALUE, self._cell_objects), self._cell_values)))
            )
        except Exception:  # something is missing
            return False

    def strides_hold(self) -> bool:
        """Whether no weight was transposed in its own memory."""
        return self._weights.strides_hold()

    def _has_no_new_names(self) -> bool:
        """Whether no object has a new attribute that calls may read."""
        if any(self._reads(one, name) for one, _, name in self._new_names()):
            return False
        self._counts = [*map(len, self._dicts)]
        return True

    def difference(self) -> str | None:
        """A description of the first change; None if there is none."""
        for owners in (self._attributes, self._none_entries, self._members, self._rules):
            for own, name, value in owners:
                if own.get(name) is not value:
                    return f"the attribute {name!r} of {self._owner(own)}"
        for _, own, name in self._new_names():
            return f"the attribute {name!r} of {self._owner(own)}"
        for kind, name, value in self._class_attributes:
            if vars(kind).get(name) is not value:
                return f"the attribute {name!r} of the class {kind.__name__}"
        for cell, name, value in self._cells:
            if cell.cell_contents is not value:
                return f"the variable {name!r} of a closure"
        for own, name, _ in self._containers.differences():
            return f"what is in the attribute {name!r} of {self._owner(own)}"
        for part, kind in zip(self._parts, self._types, strict=True):
            if type(part) is not kind:
                return f"the class of a {kind.__name__}"
        for registry, size in self._registry_sizes:
            if len(registry) != size:
                return f"what belongs to {self._owner(registry)}"
        for registry, what in self._weights.differences():
            return f"{what} of {self._owner(registry)}"
        return None

    def _owner(self, registry: Any) -> str:
        """A description of the object that has this dict or list."""
        for path, part in self._parts[0].named_modules():
            own = part.__dict__
            if own is registry or any(value is registry for value in own.values()):
                name = getattr(part, "name", path)
                return f"layer {name!r} ({type(part).__name__})" if name else f"the module ({type(part).__name__})"
        if "__builtins__" in registry:
            return f"the Python module {registry.get('__name__')!r}"
        return next((type(one).__name__ for one in self._helpers if attributes_of(one) is registry), "an object")

    def _new_names(self) -> Iterator[tuple[Any, dict[str, Any], str]]:
        """(object, its __dict__, name) of each new attribute."""
        for one, own, names in self._known_names:
            for name in own.keys() - names - self._skipped:
                is_private_of_layer = name[0] == "_" and "_token" in own and not isinstance(own[name], Tensor)
                if not is_private_of_layer:
                    yield one, own, name

    def values(self) -> list[Any]:
        """The values of attributes and of variables in closures."""
        return [*(value for *_, value in self._attributes), *(value for *_, value in self._cells)]

    def restore(self) -> None:
        """Undo assignments to attributes, variables and items of containers."""
        for own, name, value in (*self._attributes, *self._none_entries):
            if own.get(name) is not value:
                own[name] = value
        for _, own, name in [*self._new_names()]:
            del own[name]
        for kind, name, value in self._class_attributes:
            if vars(kind).get(name) is not value:
                setattr(kind, name, value)
        for cell, _, value in self._cells:
            cell.cell_contents = value
        self._containers.restore()

    def modes(self) -> tuple[bool, ...]:
        """For each part, whether it is in train mode."""
        return tuple(map(self._mode_of, self._mode_owners))

    def is_training(self) -> bool:
        """Whether any part is in train mode."""
        return True in map(self._mode_of, self._mode_owners)
