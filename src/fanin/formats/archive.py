"""The `.keras` archive: written so that Keras reads it too, read without trusting it.

::

    model.keras, a zip:  metadata.json       versions and date
                         config.json         layers, and how the model was compiled
                         model.weights.h5    weights and optimizer state, see `hdf5.py`

Loading goes from cheap to dear: the zip's directory, the JSON, every class name, then the model with weights that take
no more memory than the file has bytes to fill them, then every dataset's header, and only then values.
"""

from __future__ import annotations

import json
import os
import re
import time
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import torch

from fanin.dtypes import DTYPES
from fanin.errors import CorruptError, FormatError, MismatchError, TooLargeError, UnsafeError, VersionError
from fanin.formats import hdf5, limits
from fanin.formats.write import replacing
from fanin.layers.layer import Layer
from fanin.layers.variables import unfilled_weights
from fanin.registry import custom_object_scope, deserialize, find_class, get_registered_object, serialize

KERAS_VERSION = "3.15.1"  # whose format this is

_METADATA, _CONFIG, _WEIGHTS = "metadata.json", "config.json", "model.weights.h5"
_RUNS_CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer")
_THRESHOLDS = 100_000
_FREE_LAYERS, _BYTES_PER_LAYER = 100, 500  # each layer has two groups in the weights file
_SHOWN = 20


# --- saving -----------------------------------------------------------------------------------------------------------


def save_model(model: Any, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write a model to a `.keras` archive: architecture, weights, compile information and optimizer state.

    Args:
        model: a built model.
        filepath: a path that ends in ".keras".
        overwrite: whether an existing file may be replaced; it is replaced only once the new one is complete.

    Raises ValueError for another ending, an existing file with overwrite=False, an unbuilt model, and for what has no
    config (a lambda, a torch module); OSError for a folder that is missing or cannot be written to. The old file then
    stays as it is. Warns, and leaves compile information out, if the optimizer, loss or a metric has no config.
    The format is Keras 3.15.1's; optimizers are named so that Keras 3.6 reads them too, on every backend.
    """
    path = _target(filepath, overwrite)
    if not model.built:
        raise ValueError(f"Model {model.name!r} has no weights yet: build it, or call it once, before saving.")
    config = serialize(model)
    compiled = model.get_compile_config()
    if compiled is not None:
        config["compile_config"] = compiled
    elif model.__dict__.get("_compiled_with") is not None:
        warnings.warn(
            f"Model {model.name!r} is saved without its optimizer, loss and metrics: one of them (torch.optim's, an "
            "unregistered function) has no config.",
            UserWarning,
            stacklevel=3,
        )
    encoded = json.dumps(config, allow_nan=False).encode()
    try:
        limits.parse_json(encoded)  # what cannot be read back is not written
    except FormatError as error:
        raise ValueError(f"Model {model.name!r} cannot be saved: its config has {error}") from None
    date = time.strftime("%Y-%m-%d@%H:%M:%S")
    metadata = {"keras_version": KERAS_VERSION, "date_saved": date, "fanin_version": version("fanin")}
    groups = [*hdf5.groups(model), *([] if compiled is None else [_optimizer_group(model)])]
    members = {_METADATA: json.dumps(metadata).encode(), _CONFIG: encoded, _WEIGHTS: hdf5.write(groups)}
    with replacing(path) as file:
        _write_zip(file, members)


def _target(filepath: str | os.PathLike[str], overwrite: bool) -> Path:
    shown = os.fspath(filepath)
    if not shown.endswith(".keras"):
        raise ValueError(
            f"The path {shown!r} must end in '.keras'. For the weights alone, use torch.save(model.state_dict(), path)."
        )
    path = Path(os.path.realpath(shown))
    if path.is_dir():
        raise IsADirectoryError(f"Cannot save to {shown!r}: it is a directory.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot save to {shown!r}: there is no folder {str(path.parent)!r}.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"Cannot save to {shown!r}: no permission to write to the folder {str(path.parent)!r}.")
    if path.exists() and not overwrite:
        raise ValueError(f"The file {shown!r} exists already, and overwrite=False.")
    return path


def _write_zip(file: BinaryIO, members: Mapping[str, bytes]) -> None:
    """Stored members, all of one date, so that equal models give equal bytes."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o600 << 16
            info.file_size = len(data)
            with archive.open(info, "w") as member:
                member.write(data)


# --- the optimizer ----------------------------------------------------------------------------------------------------


def _optimizer_group(model: Any) -> hdf5.Group:
    """Iteration and learning rate, and, once there are any, the slots of the weights that train."""
    optimizer = model.optimizer
    weights = model.trainable_variables if optimizer.built else []
    return hdf5.Group("optimizer", optimizer.name, optimizer.variables(weights))


def _optimizer_specs(optimizer: Any, weights: list[torch.Tensor]) -> tuple[list[hdf5.Spec], list[hdf5.Spec]]:
    """What an optimizer's group must hold: before the first step, and after it."""
    head = [hdf5.Spec((), torch.int64, exact=False), hdf5.Spec((), torch.float64, exact=False)]
    head = head[:1] if optimizer.has_schedule else head
    slots = [hdf5.Spec(tuple(w.shape), w.dtype) for names in optimizer.groups for w in weights for _ in names]
    return head, head + slots


# --- loading ----------------------------------------------------------------------------------------------------------


def load_model(
    filepath: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> Any:
    """The model in a `.keras` archive that fanin or Keras 3 wrote.

    Args:
        filepath: the archive.
        custom_objects: name -> class or function, for what is not registered.
        compile: whether to compile it as it was, with the optimizer's state, so that training goes on where it stopped.

    Raises OSError for a path that cannot be read, else a FormatError that names file and member; see `fanin.errors`.
    No code from the file runs and nothing is imported by a name in it. The global random state is left alone.
    """
    path = os.fspath(filepath)
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path!r}.")
    members = limits.read_members(path, {_METADATA: limits.JSON_BYTES, _CONFIG: limits.JSON_BYTES, _WEIGHTS: None})
    with limits.naming(path, _METADATA):
        _check_version(limits.parse_json(members[_METADATA]))
    with limits.naming(path, _WEIGHTS):
        hdf5.check_superblock(members[_WEIGHTS])
    with limits.naming(path, _CONFIG), custom_object_scope(custom_objects):
        config = limits.parse_json(members[_CONFIG])
        if not isinstance(config, dict) or "class_name" not in config:
            raise MismatchError("expected the config of a model.")
        how = config.pop("compile_config", None)
        wanted = how if compile else None
        room = _FREE_LAYERS + len(members[_WEIGHTS]) // _BYTES_PER_LAYER
        _check_classes({"config": config, "compile_config": wanted}, room)
        with unfilled_weights(len(members[_WEIGHTS])):
            model = deserialize(config)
        if not isinstance(model, Layer) or not hasattr(model, "compile_from_config"):
            raise MismatchError(f"{config['class_name']!r} is not a model.")
    if wanted is not None:
        part = f"{_CONFIG} (compile=False leaves this part out)"
        with limits.naming(path, part), custom_object_scope(custom_objects):
            model.compile_from_config(wanted)
    with limits.naming(path, _WEIGHTS, CorruptError), hdf5.Reader(members[_WEIGHTS]) as reader:
        _fill(model, reader, wanted is not None)
    return model


def _check_version(metadata: Any) -> None:
    written_by = metadata.get("keras_version") if isinstance(metadata, dict) else None
    if not isinstance(written_by, str) or not re.match(r"\d{1,6}(\.|$)", written_by, re.ASCII):
        raise MismatchError(f"expected a keras_version, found {str(written_by)[:40]!r}.")
    if int(written_by.split(".")[0]) > 3:
        raise VersionError(f"written by Keras {written_by[:40]}; this release of fanin reads the format of Keras 3.")


def _check_classes(config: Any, most_layers: int) -> None:
    """All class names of a config at once. UnsafeError for those that carry code, MismatchError for unknown ones."""
    kinds: dict[str, str] = {}
    found: dict[str, list[str]] = {"unsafe": [], "unknown": []}
    layers = 0
    for place, described in _objects(config, ""):
        label = _label(described)
        if label not in kinds:
            kinds[label] = _kind(described)
            if kinds[label] in found:
                found[kinds[label]].append(f"{label} at {place}")
            if len(found["unknown"]) > _SHOWN:
                break
        layers += kinds[label] == "layer"
        inner = described["config"]
        thresholds = inner.get("num_thresholds") if isinstance(inner, dict) else None
        if isinstance(thresholds, int) and thresholds > _THRESHOLDS:
            raise TooLargeError(f"{place}: num_thresholds={thresholds}, at most {_THRESHOLDS}.")
    if found["unsafe"]:
        raise UnsafeError(f"it asks for code of its own to run: {', '.join(found['unsafe'][:_SHOWN])}.")
    if found["unknown"]:
        more = " and more" if len(found["unknown"]) > _SHOWN else ""
        raise MismatchError(
            f"it names what fanin does not know: {', '.join(found['unknown'][:_SHOWN])}{more}. Register your own "
            "classes and functions with @fanin.saving.register_keras_serializable(), or pass custom_objects={...}."
        )
    if layers > most_layers:
        raise TooLargeError(f"{layers} layers, more than a weights file of this size has room for.")


def _label(described: dict[str, Any]) -> str:
    """What one object config asks for, in words."""
    name, module, inner = described["class_name"], described.get("module"), described["config"]
    shown = inner if name == "function" and isinstance(inner, str) else name
    if name in ("__tensor__", "__numpy__"):
        shown = f"{name} of dtype {inner.get('dtype') if isinstance(inner, dict) else inner!r}"
    registered = described.get("registered_name")
    known_as = f", registered as {registered!r}" if isinstance(registered, str) and registered != name else ""
    return f"{str(shown)[:100]!r} (module {str(module)[:100]!r}{known_as[:100]})"


def _kind(described: dict[str, Any]) -> str:
    """ "layer", "other", "unknown" or "unsafe"."""
    name, inner, registered = described["class_name"], described["config"], described.get("registered_name")
    custom = get_registered_object(name) if isinstance(name, str) else None
    if custom is None:
        if name in ("__tensor__", "__numpy__"):
            return "other" if isinstance(inner, dict) and inner.get("dtype") in DTYPES else "unsafe"
        if name in _RUNS_CODE or (name == "function" and not isinstance(inner, str)):
            return "unsafe"
        if isinstance(registered, str) and ">" in registered and get_registered_object(registered) is None:
            return "unknown"
        if name == "__keras_tensor__" or "module" not in described:
            return "other"  # the parts of Keras 2 have no module; their families know them by name
        try:
            custom = find_class(described)
        except MismatchError:
            return "unknown"
    return "layer" if isinstance(custom, type) and issubclass(custom, Layer) else "other"


def _objects(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object config inside a value, with the way to it."""
    if isinstance(value, dict):
        if "class_name" in value and "config" in value:
            yield place, value
        for key, item in value.items():
            yield from _objects(item, f"{place}.{key[:40]}" if place else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _objects(item, f"{place}[{index}]")


def _fill(model: Any, reader: hdf5.Reader, compiled: bool) -> None:
    """Compare every header with the model, then read all values into it, then the optimizer's state."""
    groups = list(hdf5.groups(model))
    specs = [[hdf5.Spec(tuple(t.shape), t.dtype) for t in group.tensors] for group in groups]
    found = [reader.check(group, wanted) for group, wanted in zip(groups, specs, strict=True)]
    reader.check_leftovers(groups)
    state = _optimizer_plan(model, reader) if compiled else None
    with torch.no_grad():
        for group, wanted, datasets in zip(groups, specs, found, strict=True):
            for tensor, spec, dataset in zip(group.tensors, wanted, datasets, strict=True):
                tensor.copy_(reader.read(dataset, spec))
    if state is not None:
        weights = model.trainable_variables if len(state) > (1 if model.optimizer.has_schedule else 2) else []
        if weights:
            model.optimizer.build(weights)
        model.optimizer.set_state(weights, [reader.read(dataset, spec) for dataset, spec in state])


def _optimizer_plan(model: Any, reader: hdf5.Reader) -> list[tuple[Any, hdf5.Spec]] | None:
    """The optimizer's datasets with their specs; None, and a warning, if their number fits no state of it."""
    optimizer = model.optimizer
    count = reader.count("optimizer/vars")
    if count is None:
        return None
    for specs in _optimizer_specs(optimizer, model.trainable_variables):
        if len(specs) == count:
            group = hdf5.Group("optimizer", None, [])
            return list(zip(reader.check(group, specs), specs, strict=True))
    warnings.warn(
        f"The state of the optimizer {optimizer.name!r} is left out: the file has {count} variables, which do not fit "
        "the weights that train. It was saved after weights were frozen or thawed.",
        UserWarning,
        stacklevel=5,
    )
    return None
