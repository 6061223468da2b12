"""What each output of a model is trained and measured by: losses, factors and metrics, given by position or by name.

::

    loss={"price": "mse", "sold": "bce"}        loss=["mse", "bce"]        loss="mse" for all
    metrics={"price": ["mae"]}                  metrics=[["mae"], None]

A model with one output takes them without a name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from fanin.errors import DataError
from fanin.graph.tree import leaves

Shape = tuple[int | None, ...]


@dataclass
class Output:
    """One output of a model.

    Attributes:
        name: the key or the layer's name; None for the only one.
        path: its position in what the model returns: () or ("price",) or (0, 1).
        loss: its loss, or None.
        factor: its loss weight, or None.
        plain, weighted: its metrics, without and with sample weights.
    """

    name: str | None
    path: tuple[Any, ...]
    loss: Any = None
    factor: float | None = None
    plain: list[Any] = field(default_factory=list)
    weighted: list[Any] = field(default_factory=list)

    def pick(self, outputs: Any) -> Any:
        """This output, from all that the model returned."""
        for step in self.path:
            outputs = outputs[step]
        return outputs


def paths(shapes: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Shape]]:
    """The path and shape of each output, from a structure of shapes."""
    if isinstance(shapes, Mapping):
        return [found for key, item in shapes.items() for found in paths(item, (*path, key))]
    if all(size is None or isinstance(size, int) for size in shapes):
        return [(path, tuple(shapes))]
    return [found for place, item in enumerate(shapes) for found in paths(item, (*path, place))]


def names_of(found: Sequence[tuple[Any, ...]], layer_names: Sequence[str] | None) -> list[str]:
    """A name for each path: the keys of a dict, else the names of the layers, else output_0, output_1, ..."""
    names = []
    for place, path in enumerate(found):
        keys = [str(step) for step in path if isinstance(step, str)]
        known = layer_names[place] if layer_names is not None else f"output_{place}"
        names.append("_".join(keys) if keys else known)
    return [name if name not in names[:place] else f"{name}_{place}" for place, name in enumerate(names)]


def spread(given: Any, names: Sequence[str | None], what: str, several: bool = False) -> list[Any]:
    """One entry of `given` for each output.

    Args:
        given: None, a dict by name, a list by position, or one entry.
        names: of the outputs.
        what: the argument, for messages.
        several: whether an entry may itself be a list, as metrics are; one entry alone is then refused for several
            outputs, as in Keras: nobody could tell which output it is for.

    Raises ValueError that names the argument, what was found and what was expected.
    """
    count = len(names)
    if given is None:
        return [None] * count
    if isinstance(given, Mapping) and not ("class_name" in given and "config" in given):
        unknown = [key for key in given if key not in names]
        if count == 1 and len(given) == 1:
            return [next(iter(given.values()))]
        if unknown:
            raise ValueError(f"compile: {what} names {unknown}; the outputs are {list(names)}.")
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)):
        if count == 1 and (several or len(given) == 1):
            return [list(given)] if several else [given[0]]
        if len(given) == count:
            return list(given)
        raise ValueError(f"compile: {what} has {len(given)} entries, the model has {count} outputs: {list(names)}.")
    if several and count > 1:
        raise ValueError(f"compile: give {what} for each of the outputs {list(names)}, in a list or a dict by name.")
    return [given] * count


def choose(outputs: list[Output], values: Any, what: str, needed: bool) -> list[Any]:
    """The entry of `values` (targets or weights) for each output; None where there is none.

    Args:
        outputs: of the model.
        values: one entry, a list by position (outputs without a loss may be left out), a dict by name, or a structure
            like the model's outputs.
        what: "y", for messages.
        needed: whether each output with a loss must have an entry; else one entry is for all.
    """
    if values is None:
        return [None] * len(outputs)
    if len(outputs) == 1 and isinstance(values, torch.Tensor):
        return [values]
    trained = [output for output in outputs if output.loss is not None]
    if isinstance(values, Mapping):
        found = [_at(values, output) for output in outputs]
        if len(outputs) == 1 and len(values) == 1 and found == [None]:
            found = list(values.values())
    elif isinstance(values, (list, tuple)):
        flat = list(leaves(values))
        if len(flat) == len(outputs):
            found = flat
        elif len(flat) == len(trained):
            left = iter(flat)
            found = [next(left) if output.loss is not None else None for output in outputs]
        else:
            raise DataError(f"{what} has {len(flat)} entries, the model has {len(outputs)} outputs: {_names(outputs)}.")
    else:
        found = [values] * len(outputs) if len(outputs) == 1 or not needed else [None] * len(outputs)
    missing = [
        output.name for output, value in zip(outputs, found, strict=True) if output.loss is not None and value is None
    ]
    if needed and missing:
        raise DataError(f"{what} lacks the targets of {missing}; the model has the outputs {_names(outputs)}.")
    return found


def _at(values: Mapping[Any, Any], output: Output) -> Any:
    """The entry for an output: by its name, or by its path."""
    named = values.get(output.name)
    if named is not None and not isinstance(named, (Mapping, list, tuple)):
        return named
    place: Any = values
    for step in output.path:
        if not isinstance(place, (Mapping, list, tuple)) or (isinstance(place, Mapping) and step not in place):
            return named
        place = place[step]
    return place if output.path and isinstance(place, torch.Tensor) else named


def _names(outputs: list[Output]) -> list[str | None]:
    return [output.name for output in outputs]


def metric_names(outputs: list[Output], given: list[list[Any]], given_weighted: list[list[Any]]) -> list[str]:
    """The names in histories, as Keras gives them: the string that was given, else the metric's own, after the name of
    the output; "weighted_" before a weighted one whose name is taken, and a number behind one that comes again."""
    counts: dict[str, int] = {}

    def fresh(name: str) -> str:
        counts[name] = counts.get(name, 0) + 1
        return name if counts[name] == 1 else f"{name}_{counts[name] - 1}"

    def labels(identifiers: list[Any], made: list[Any]) -> list[str]:
        return [i if isinstance(i, str) else m.name for i, m in zip(identifiers, made, strict=True)]

    names = []
    for output, identifiers in zip(outputs, given, strict=True):
        prefix = "" if output.name is None else f"{output.name}_"
        names += [fresh(prefix + label) for label in labels(identifiers, output.plain)]
    for output, identifiers in zip(outputs, given_weighted, strict=True):
        prefix = "" if output.name is None else f"{output.name}_"
        for label in labels(identifiers, output.weighted):
            taken = prefix + label in counts
            names.append(fresh(f"{prefix}weighted_{label}" if taken else prefix + label))
    return names
