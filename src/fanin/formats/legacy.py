"""Reading the `.h5` of Keras 1 and 2, which Keras 3 still writes: whole models, and weights alone.

::

    /  attributes model_config, training_config (JSON), keras_version
    model_weights                     in a file of weights, the root itself; attribute layer_names
    model_weights/dense_1             attribute weight_names, such as ["dense_1/kernel:0", "dense_1/bias:0"]
    model_weights/dense_1/dense_1/kernel:0
    model_weights/top_level_model_weights     weights of the model itself
    optimizer_weights                 attribute weight_names

A list of names that is too long for one attribute is spread over name0, name1, ... Of each layer come first the weights
that train, then the others. A graph's layers are matched by their order, or by their names.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from fanin.errors import CorruptError, MismatchError, VersionError
from fanin.formats import archive, limits
from fanin.formats.classes import check_classes, most_layers
from fanin.formats.faults import Faults
from fanin.formats.hdf5 import Reader, Spec
from fanin.formats.hdf5_objects import Array, is_hdf5
from fanin.formats.legacy_config import compile_config, model_config
from fanin.formats.state import check_head, left_out, optimizer_specs, own_optimizer, set_optimizer, spec_of
from fanin.layers.base.variables import named_weights, own_weights
from fanin.optimizers import Optimizer
from fanin.registry import custom_object_scope

_MODEL, _TOP, _OPTIMIZER = "model_weights", "top_level_model_weights", "optimizer_weights"
_COUNTERS_OF_KERAS_2 = ("iter:0", "iterations:0")


def load_model(
    filepath: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> Any:
    """The model in a `.h5` file that Keras 1, 2 or 3 wrote.

    Args:
        filepath: the file.
        custom_objects: name -> class or function, for what is not registered.
        compile: whether to compile it as it was, with the optimizer's state where the file has one that fits.

    Raises OSError for a path that cannot be read, else a FormatError that names file and part; see `fanin.errors`. No
    code from the file runs and nothing is imported by a name in it. Warns of what Keras 2 computed in another way.
    """
    path = os.fspath(filepath)
    data = limits.read_file(path)
    notes: list[str] = []
    with limits.naming(path, "model_config"), custom_object_scope(custom_objects):
        reader = Reader(data)
        major = _major_version(reader)
        config = _json(reader, "model_config")
        if config is None:
            raise MismatchError("there is none: the file holds only weights. Make the model and use load_weights.")
        config = model_config(config, notes)
        training = _json(reader, "training_config") if compile else None
        how = None if training is None else compile_config(training, notes)
        check_classes({"model_config": config, "training_config": how}, most_layers(len(data)))
        model = archive.made(config, len(data))
    if how is not None:
        part = "training_config (compile=False leaves this part out)"
        with limits.naming(path, part), custom_object_scope(custom_objects):
            model.compile_from_config(how)
    with limits.naming(path, _MODEL, CorruptError):
        plan = LayerPlan(model, reader)
        plan.faults.check()
        plan.carry_out()
    notes = notes if major < 3 else []
    optimizer = None if how is None else own_optimizer(model)
    if optimizer is not None:
        with limits.naming(path, _OPTIMIZER, CorruptError):
            notes += _read_optimizer(optimizer, model.trainable_variables, reader)
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    return model


def is_hdf5_file(filepath: str | os.PathLike[str]) -> bool:
    """Whether a file begins as HDF5 does; by its name where it cannot be read, or begins as neither HDF5 nor a zip."""
    is_named_so = os.fspath(filepath).endswith((".h5", ".hdf5"))
    try:
        with limits.open_regular(filepath) as file:
            head = file.read(8)
    except (OSError, CorruptError):
        return is_named_so
    return is_hdf5(head) or (is_named_so and not head.startswith(b"PK"))


def holds(reader: Reader) -> bool:
    """Whether a file is in this format."""
    return _MODEL in (reader.names("") or ()) or _names(reader, "", "layer_names") is not None


class LayerPlan:
    """Which datasets go into which weights of a model. Making one changes nothing; `carry_out` cannot fail.

    Args:
        model: a built model with `layers`.
        reader: the file.
        by_name: match layers by their names, and leave alone those that the file or the model lacks; else by order.

    Attributes:
        faults: what does not fit; the plan leaves whole layers out for it.
        note: always "".
    """

    def __init__(self, model: nn.Module, reader: Reader, by_name: bool = False):
        self.faults = Faults()
        self.note = ""
        self._reader = reader
        self._weights: list[tuple[torch.Tensor, Array, Spec]] = []
        layers = getattr(model, "layers", None)
        if layers is None:
            raise MismatchError(f"{type(model).__name__} has no `layers` to match with those of the file.")
        base = _MODEL if _MODEL in (reader.names("") or ()) else ""
        stored = [(name, _names(reader, f"{base}/{name}", "weight_names") or []) for name in _listed(reader, base)]
        stored = [(name, weights) for name, weights in stored if weights]
        own = [(getattr(layer, "name", type(layer).__name__), _in_order(layer)) for layer in layers]
        own = [(name, weights) for name, weights in own if weights]
        for name, weights, found, paths in _by_name(own, stored) if by_name else self._by_order(own, stored):
            self._match(f"{base}/{found}", paths, weights, f"layer {name!r}")
        top = [weight for _, weight in own_weights(model)]
        top_paths = _names(reader, f"{base}/{_TOP}", "weight_names") if _TOP in (reader.names(base) or ()) else None
        if top or top_paths:
            self._match(f"{base}/{_TOP}", top_paths or [], _trainable_first(top), "the model itself")

    def _by_order(self, own: list[_Own], stored: list[_Stored]) -> Iterator[_Pair]:
        if len(own) != len(stored):
            with self.faults.noted():
                raise MismatchError(
                    f"the model has {len(own)} layers with weights, {_shown(own)}, and the file {len(stored)}, "
                    f"{_shown(stored)}."
                )
        for (name, weights), (found, paths) in zip(own, stored, strict=False):
            yield name, weights, found, paths

    def _match(self, group: str, paths: list[str], weights: list[torch.Tensor], what: str) -> None:
        """Plan one layer, or note all that is wrong with it."""
        with self.faults.noted():
            if len(paths) != len(weights):
                raise MismatchError(f"{group.lstrip('/')} holds {len(paths)} weights, {what} has {len(weights)}.")
            specs = [spec_of(weight, exact=False) for weight in weights]
            faults, arrays = Faults(), []
            for path, spec in zip(paths, specs, strict=True):
                with faults.noted():
                    arrays.append(self._reader.dataset(f"{group}/{path}".lstrip("/"), spec))
            faults.check()
            self._weights += zip(weights, arrays, specs, strict=True)

    def carry_out(self) -> None:
        """Write all values into the model."""
        with torch.no_grad():
            for tensor, array, spec in self._weights:
                tensor.copy_(self._reader.read(array, spec))


_Own = tuple[str, list[torch.Tensor]]
_Stored = tuple[str, list[str]]
_Pair = tuple[str, list[torch.Tensor], str, list[str]]


def _by_name(own: list[_Own], stored: list[_Stored]) -> Iterator[_Pair]:
    for found, paths in stored:
        for name, weights in own:
            if name == found:
                yield name, weights, found, paths


def _shown(layers: list[Any]) -> str:
    names = [name for name, _ in layers]
    return f"{names[:20]}" if len(names) <= 20 else f"{names[:20]} and {len(names) - 20} more"


def _in_order(module: nn.Module) -> list[torch.Tensor]:
    return _trainable_first([weight for _, weight in named_weights(module)])


def _trainable_first(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    trains = [isinstance(weight, nn.Parameter) and weight.requires_grad for weight in weights]
    first = [weight for weight, now in zip(weights, trains, strict=True) if now]
    return first + [weight for weight, now in zip(weights, trains, strict=True) if not now]


# --- attributes -------------------------------------------------------------------------------------------------------


def _names(reader: Reader, path: str, attribute: str) -> list[str] | None:
    """A list of names, put together if it is spread over several attributes; None if there is none."""
    address = reader.find(path)
    if address is None:
        raise MismatchError(f"{path.lstrip('/')} is missing.")
    found = reader.objects.text(address, attribute)
    if found is not None:
        return found
    spread: list[list[str]] = []
    while (part := reader.objects.text(address, f"{attribute}{len(spread)}")) is not None:
        spread.append(part)
    return [name for part in spread for name in part] if spread else None


def _listed(reader: Reader, base: str) -> list[str]:
    """The names of the layers."""
    names = _names(reader, base, "layer_names")
    if names is None:
        raise MismatchError(f"{base or 'the root'} does not say which layers it holds.")
    if len(set(names)) != len(names):
        raise CorruptError(f"{base or 'the root'} names a layer twice.")
    return names


def _json(reader: Reader, attribute: str) -> Any:
    """The JSON of an attribute of the root, or None."""
    found = reader.objects.text(reader.objects.root, attribute)
    if found is None:
        return None
    if len(found) != 1:
        raise MismatchError(f"{attribute} is not one string.")
    return limits.parse_json(found[0].encode())


def _major_version(reader: Reader) -> int:
    """Keras's major version, 1 where the file does not say."""
    text = (reader.objects.text(reader.objects.root, "keras_version") or ["1"])[0]
    found = re.match(r"\d{1,6}", text, re.ASCII)
    major = int(found.group()) if found else 1
    if major > 3:
        raise VersionError(f"written by Keras {text[:40]}; this release of fanin reads the formats of Keras 1 to 3.")
    return major


# --- the optimizer ----------------------------------------------------------------------------------------------------


def _read_optimizer(optimizer: Optimizer, weights: list[torch.Tensor], reader: Reader) -> list[str]:
    """Give the optimizer its state; returns why it is left out, if it is."""
    if _OPTIMIZER not in (reader.names("") or ()):
        return []
    paths = [f"{_OPTIMIZER}/{path}" for path in _names(reader, _OPTIMIZER, "weight_names") or []]
    head, specs = optimizer_specs(optimizer, weights)
    old = bool(paths) and paths[0].endswith(_COUNTERS_OF_KERAS_2)
    if old:
        values = _read_keras_2(optimizer, weights, reader, paths)
    else:
        fitting = [wanted for wanted in (head, specs) if len(wanted) == len(paths)]
        values = _read_all(reader, paths, fitting[0]) if fitting else None
    if values is None:
        return [left_out(optimizer, len(paths))]
    check_head(optimizer, values)
    set_optimizer(optimizer, weights, values)
    return []


def _read_all(reader: Reader, paths: list[str], specs: list[Spec]) -> list[torch.Tensor] | None:
    """All variables, or None if one does not fit."""
    try:
        arrays = [reader.dataset(path, spec) for path, spec in zip(paths, specs, strict=True)]
    except MismatchError:
        return None
    return [reader.read(array, spec) for array, spec in zip(arrays, specs, strict=True)]


def _read_keras_2(
    optimizer: Optimizer, weights: list[torch.Tensor], reader: Reader, paths: list[str]
) -> list[torch.Tensor] | None:
    """The state as optimizers up to Keras 2.10 kept it: the counter, then slot by slot, each for all weights."""
    slots = [name for group in optimizer.groups for name in group]
    specs = [Spec((), torch.int64, exact=False), *(spec_of(weight, exact=True) for _ in slots for weight in weights)]
    if len(specs) != len(paths):
        return None
    found = _read_all(reader, paths, specs)
    if found is None:
        return None
    places = [(name, i) for name in slots for i in range(len(weights))]
    values = dict(zip(places, found[1:], strict=True))
    ordered = [values[name, i] for group in optimizer.groups for i in range(len(weights)) for name in group]
    rate = [] if optimizer.has_schedule else [torch.tensor(optimizer.learning_rate, dtype=torch.float64, device="cpu")]
    return [found[0], *rate, *ordered]
