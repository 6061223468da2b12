"""The `.keras` archive: written so that Keras reads it too, read without trusting it.

::

    model.keras, a zip:  metadata.json       versions and date
                         config.json         layers, and how the model was compiled
                         model.weights.h5    weights and optimizer state, see `hdf5.py`

Loading goes from cheap to dear: the zip's directory, the JSON, every class name, then the model with weights that take
no more memory than the file has bytes to fill them, then every dataset's header, and only then values.
"""

from __future__ import annotations

import io
import json
import os
import re
import time
import warnings
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, BinaryIO

import torch

from fanin.errors import CorruptError, FormatError, MismatchError, VersionError
from fanin.formats import hdf5, hdf5_objects, limits, low_rank, state
from fanin.formats.classes import check_classes, most_layers
from fanin.layers.base.layer import Layer
from fanin.layers.base.uninitialized import uninitialized_weights
from fanin.layers.input_layer import InputLayer
from fanin.registry import custom_object_scope, deserialize, serialize, sharing
from fanin.training.compiled import take_compile_config
from fanin.write import replacing, target

KERAS_VERSION = "3.15.1"  # whose format this is

_METADATA, _CONFIG, _WEIGHTS = "metadata.json", "config.json", "model.weights.h5"


# --- saving -----------------------------------------------------------------------------------------------------------


def save_model(
    model: Any, filepath: str | os.PathLike[str], overwrite: bool = True, assets: Mapping[str, bytes] | None = None
) -> None:
    """Write a model to a `.keras` archive: architecture, weights, compile information and optimizer state.

    Args:
        model: a built model.
        filepath: a path that ends in ".keras".
        overwrite: whether an existing file may be replaced; it is replaced only once the new one is complete.
        assets: name -> bytes of further members, written as "assets/<name>"; readers of models leave them alone.

    Raises ValueError for another ending, an existing file with overwrite=False, an unbuilt model, and for what has no
    config (a lambda, a torch module); OSError for a folder that is missing or cannot be written to. The old file then
    stays as it is. Warns, and leaves compile information out, if the optimizer, loss or a metric has no config.
    The format is Keras 3.15.1's; optimizers are named so that Keras 3.6 reads them too, on every backend.
    """
    path = target(
        filepath, (".keras",), overwrite, " For the weights alone, use save_weights; Keras 2's .h5 is only read."
    )
    if not model.built:
        raise ValueError(f"Model {model.name!r} has no weights yet: build it, or call it once, before saving.")
    state.check_plain(model)
    state.check_ways(model, assets=True)
    with sharing(_shared_layers(model)):
        config, compiled = serialize(model), model.described_compile()
    adapters = low_rank.describe(model)
    if adapters:
        config["adapters"] = adapters
        low_rank.leave_out_alpha(config)
    config |= compiled
    if not compiled and model.__dict__.get("_compiled_with") is not None:
        warnings.warn(
            f"Model {model.name!r} is saved without its optimizer, loss and metrics: one of them (torch's, a lambda) "
            "has no config.",
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
    weights = io.BytesIO()
    hdf5.write(state.all_groups(model, state.own_optimizer(model) if compiled else None), weights)
    members = {_METADATA: json.dumps(metadata).encode(), _CONFIG: encoded, _WEIGHTS: weights.getvalue()}
    members |= {f"assets/{name}": data for name, data in (assets or {}).items()}
    with replacing(path) as file:
        _write_zip(file, members)


def _shared_layers(model: Any) -> list[Layer]:
    """The layers that are in several of the models that are nested in this one, or in it and in one of them."""
    seen: set[int] = set()
    shared: dict[int, Layer] = {}
    models = [model]
    for outer in models:  # grows while it is walked
        for layer in outer._saved_layers():
            if id(layer) in seen and not isinstance(layer, InputLayer):
                shared[id(layer)] = layer
            elif isinstance(layer, Layer):
                seen.add(id(layer))
                models.append(layer)
    return list(shared.values())


def _write_zip(file: BinaryIO, members: Mapping[str, bytes]) -> None:
    """Stored members, all of one date, so that equal models give equal bytes."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o600 << 16
            info.file_size = len(data)
            with archive.open(info, "w") as member:
                member.write(data)


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
    members = read_members(path)
    with limits.naming(path, _CONFIG), custom_object_scope(custom_objects):
        config = limits.parse_json(members[_CONFIG])
        if not isinstance(config, dict) or "class_name" not in config:
            raise MismatchError("expected the config of a model.")
        how, adapters = take_compile_config(config), config.pop("adapters", None)
        wanted = how if compile else None
        check_classes({"config": config, "compile_config": wanted}, most_layers(len(members[_WEIGHTS])))
        model = made(config, _room(members))
        fault = state.own_ways(model, assets=True)
        if fault:
            raise MismatchError(fault)
        if adapters is not None:
            low_rank.rebuild(model, adapters, _room(members))
    if wanted is not None:
        part = f"{_CONFIG} (compile=False leaves this part out)"
        with limits.naming(path, part), custom_object_scope(custom_objects):
            model.compile_from_config(wanted)
    with limits.naming(path, _WEIGHTS, CorruptError):
        optimizer = None if wanted is None else state.own_optimizer(model)
        plan = state.Plan(model, hdf5.Reader(members[_WEIGHTS]), optimizer)
        plan.faults.check()
        plan.carry_out()
    if plan.note:
        warnings.warn(plan.note, UserWarning, stacklevel=3)
    return model


def read_members(path: str) -> dict[str, bytes]:
    """The three members of an archive of Keras 3."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path!r}.")
    members = limits.read_members(path, {_METADATA: limits.JSON_BYTES, _CONFIG: limits.JSON_BYTES, _WEIGHTS: None})
    with limits.naming(path, _METADATA):
        _check_version(limits.parse_json(members[_METADATA]))
    with limits.naming(path, _WEIGHTS):
        hdf5_objects.check_superblock(members[_WEIGHTS])
    return members


def _room(members: Mapping[str, bytes]) -> int:
    """How many bytes the weights may take: those of the file. Keras stores no A and B, which are small beside a kernel
    that they serve."""
    stored = len(members[_WEIGHTS])
    return 3 * stored + 2**20 if b'"lora_rank"' in members[_CONFIG] else stored


def made(config: dict[str, Any], size: int) -> Any:
    """The model of a checked config, its weights without values and of at most `size` bytes."""
    with uninitialized_weights(size), sharing(), torch.random.fork_rng(devices=[]):  # layers that read themselves draw
        model = deserialize(config)
    if not isinstance(model, Layer) or not hasattr(model, "compile_from_config"):
        raise MismatchError(f"{config['class_name']!r} is not a model.")
    return model


def _check_version(metadata: Any) -> None:
    written_by = metadata.get("keras_version") if isinstance(metadata, dict) else None
    if not isinstance(written_by, str) or not re.match(r"\d{1,6}(\.|$)", written_by, re.ASCII):
        raise MismatchError(f"expected a keras_version, found {str(written_by)[:40]!r}.")
    if int(written_by.split(".")[0]) > 3:
        raise VersionError(f"written by Keras {written_by[:40]}; this release of fanin reads the format of Keras 3.")
