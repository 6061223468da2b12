"""Weights without their model: `.weights.h5` as Keras writes it, `.safetensors`, and reading what Keras 2 wrote."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Collection
from typing import Any

from torch import nn

from fanin.errors import CorruptError, MismatchError
from fanin.formats import archive, hdf5, legacy, limits, state, tensors
from fanin.formats.hdf5_objects import is_hdf5
from fanin.write import replacing, target

_CHECKSUM = "sha256"
_PLACE = hashlib.sha256(b"the place of the checksum").hexdigest().encode()  # stands in the file while it is summed up
_HINT = " For the whole model, use save; Keras 2's .h5 is only read."


def save_weights(model: nn.Module, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write the weights of a model to a file: all of them, or, on an error, no file at all.

    Args:
        model: a built model or layer, or any nn.Module.
        filepath: where to. ".weights.h5" is Keras's layout, with the state of fanin's optimizers, and Keras reads it;
            ".safetensors" holds the `state_dict`, and `safetensors.torch` reads it.
        overwrite: whether an existing file may be replaced; it is replaced only once the new one is complete.

    Both hold a checksum, which `load_weights` compares. Raises ValueError for another ending, an existing file with
    overwrite=False and a model that is not built; OSError for a folder that is missing or cannot be written to.

    >>> import tempfile, torch
    >>> one, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(one, f"{folder}/one.safetensors")
    ...     load_weights(other, f"{folder}/one.safetensors")
    >>> bool((one.weight == other.weight).all())
    True
    """
    shown = os.fspath(filepath)
    path = target(filepath, (".weights.h5", ".safetensors"), overwrite, _HINT)
    state.check_built(model)
    if shown.endswith(".safetensors"):
        tensors.save(model, path)
        return
    state.check_plain(model)
    state.check_ways(model)
    groups = state.all_groups(model, state.own_optimizer(model))
    with replacing(path) as file:
        hdf5.write(groups, file, {_CHECKSUM: _PLACE})
        file.seek(0)
        data = file.read()
        file.seek(data.index(_PLACE))
        file.write(hashlib.sha256(data).hexdigest().encode())


def load_weights(
    model: nn.Module, filepath: str | os.PathLike[str], skip_mismatch: bool = False, **kwargs: Any
) -> None:
    """Read weights into a model: all of them, or, on an error, nothing changes.

    Args:
        model: a built model or layer, or any nn.Module.
        filepath: a ".weights.h5", ".keras" or ".h5" file of fanin or Keras, or a ".safetensors" file.
        skip_mismatch: leave out what does not fit, layer by layer (in safetensors tensor by tensor), with one warning
            that lists it.
        **kwargs: by_name=True takes the layers of a Keras 2 file by their names; objects_to_skip is a list of layers to
            leave alone, in Keras's layout.

    Floats of another width are cast. A compiled model gets its optimizer's state too, if the file has one that fits;
    if it does not fit, a warning says so. Raises ValueError for a model that is not built, OSError for a path that
    cannot be read, else a FormatError with all mismatches; see `fanin.errors`. No code from the file runs.
    """
    skip: Collection[nn.Module] = kwargs.pop("objects_to_skip", None) or ()
    by_name = bool(kwargs.pop("by_name", None))
    if kwargs:
        raise TypeError(f"load_weights has no argument {', '.join(map(repr, kwargs))}.")
    state.check_built(model)
    path = os.fspath(filepath)
    plan: tensors.TensorPlan | state.Plan | legacy.LayerPlan
    if path.endswith(".safetensors"):
        _refuse(path, by_name=by_name, objects_to_skip=skip)
        plan = tensors.TensorPlan(model, path, skip_mismatch)
    else:
        plan = _plan_hdf5(model, path, by_name, skip)
        with limits.naming(path, "weights"):
            if not skip_mismatch:
                plan.faults.check()
    notes = [f"{path}: left out, as it does not fit: {plan.faults}."] if plan.faults.found else []
    for note in [*notes, *([plan.note] if plan.note else [])]:
        warnings.warn(note, UserWarning, stacklevel=3)
    plan.carry_out()


def _plan_hdf5(
    model: nn.Module, path: str, by_name: bool, skip: Collection[nn.Module]
) -> state.Plan | legacy.LayerPlan:
    is_archive = path.endswith(".keras") and not legacy.is_hdf5_file(path)
    data = archive.read_members(path)["model.weights.h5"] if is_archive else limits.read_file(path)
    with limits.naming(path, "weights", CorruptError):
        if not is_hdf5(data):
            raise MismatchError("expected HDF5, or a name that ends in .safetensors or .keras.")
        reader = hdf5.Reader(data)
        _check_sum(reader)
        is_old = legacy.holds(reader)
    _refuse(path, **({"objects_to_skip": skip} if is_old else {"by_name": by_name}))
    with limits.naming(path, "weights", CorruptError):
        if is_old:
            return legacy.LayerPlan(model, reader, by_name)
        return state.Plan(model, reader, state.own_optimizer(model), exact=False, skip=skip)


def _check_sum(reader: hdf5.Reader) -> None:
    """CorruptError if the file has a checksum, and a wrong one."""
    found = reader.objects.text(reader.objects.root, _CHECKSUM)
    if found is None:
        return
    data = reader.objects.data
    place = data.find(found[0].encode()) if found and len(found[0]) == len(_PLACE) else -1
    if place < 0:
        raise CorruptError("the checksum is damaged.")
    whole = hashlib.sha256(memoryview(data)[:place])
    whole.update(_PLACE)
    whole.update(memoryview(data)[place + len(_PLACE) :])
    if whole.hexdigest() != found[0]:
        raise CorruptError(
            "the checksum is wrong: the bytes have changed since they were written. If that was meant, delete the "
            f"attribute {_CHECKSUM!r} of the root."
        )


def _refuse(path: str, **given: Any) -> None:
    """ValueError for an argument that this kind of file does not take."""
    for name, value in given.items():
        if value:
            raise ValueError(f"load_weights: {name} is of no use for {path!r}, a file of another kind.")
