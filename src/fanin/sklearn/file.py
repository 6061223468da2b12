"""An estimator in one file: the `.keras` archive of its network, with one member more.

::

    estimator.keras, a zip:  metadata.json, config.json, model.weights.h5    as of every model: see `formats/archive.py`
                             assets/estimator.json                           class, arguments, columns, targets, history

So fanin and Keras open it as a model too. It is plain data: nothing in it is run, and everything is checked before an
estimator is made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fanin import losses
from fanin.errors import MismatchError
from fanin.formats import archive, limits
from fanin.models import Sequential
from fanin.registry import custom_object_scope
from fanin.sklearn.columns import Array, Columns, checked_numbers

E = TypeVar("E")

MEMBER = "assets/estimator.json"
OF_THE_MODEL = ("activation", "optimizer", "loss")  # as objects, the network holds them
LABELS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
          "float64", "str", "object")  # fmt: skip


def save(estimator: Any, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write a fitted estimator; see `DenseEstimator.save`."""
    check_is_fitted(estimator, "model_")
    if estimator.model_.get_compile_config() is None:
        raise ValueError(
            f"{type(estimator).__name__} cannot be saved: its loss or optimizer is not known to files. Decorate it "
            "with @fanin.saving.register_keras_serializable()."
        )
    names = getattr(estimator, "feature_names_in_", None)
    data = {
        "class_name": type(estimator).__name__,
        "arguments": _arguments(estimator),
        "features": {"count": estimator.n_features_in_, "names": None if names is None else names.tolist()},
        "columns": estimator.columns_.get_config(),
        "target": estimator._target_config(),
        "history": {name: [n if np.isfinite(n) else None for n in line] for name, line in estimator.history_.items()},
    }
    try:
        encoded = json.dumps(data, allow_nan=False).encode()
        limits.parse_json(encoded)  # what cannot be read back is not written
    except (TypeError, ValueError) as error:
        raise ValueError(f"{type(estimator).__name__} cannot be saved: {error}") from None
    archive.save_model(estimator.model_, filepath, overwrite, {MEMBER.removeprefix("assets/"): encoded})


def load(cls: type[E], filepath: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None) -> E:
    """An estimator of this class from a file; see `DenseEstimator.load`."""
    model = archive.load_model(filepath, custom_objects)
    members = dict.fromkeys(("metadata.json", "config.json", "model.weights.h5"))  # known, and of any size
    found = limits.read_members(filepath, {**members, MEMBER: limits.JSON_BYTES})
    with limits.naming(filepath, MEMBER), custom_object_scope(custom_objects):
        data = limits.parse_json(found[MEMBER])
        keys = ("class_name", "arguments", "features", "columns", "target", "history")
        if not isinstance(data, dict) or sorted(data) != sorted(keys):
            raise MismatchError(f"expected an object of {', '.join(keys)}.")
        if data["class_name"] != cls.__name__:
            raise MismatchError(f"it holds a {str(data['class_name'])[:40]!r}, no {cls.__name__}.")
        estimator: Any = cls(**_read_arguments(cls, data["arguments"], model))
        estimator.n_features_in_, names = _read_features(data["features"])
        if names is not None:
            estimator.feature_names_in_ = names
        estimator.columns_ = Columns.from_config(data["columns"], estimator.n_features_in_)
        estimator._target_from_config(data["target"], model.output_shape[-1])
        estimator.history_ = _read_history(data["history"])
        estimator.model_ = _checked_model(model, estimator.columns_, estimator._units())
    loaded: E = estimator
    return loaded


# --- arguments --------------------------------------------------------------------------------------------------------


def _arguments(estimator: Any) -> dict[str, Any]:
    """The arguments as JSON data, without objects that the network holds."""
    found = {}
    for name, value in estimator.get_params(deep=False).items():
        if name not in OF_THE_MODEL or isinstance(value, str):
            found[name] = _plain(value, name)
    return found


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Mapping):  # of labels, which need not be strings
        return [[_plain(key, name), _plain(item, name)] for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"The argument {name}={value!r} cannot be saved. Change it by set_params({name}=...) first.")


def _read_arguments(cls: Any, data: Any, model: Any) -> dict[str, Any]:
    known = sorted(cls().get_params())
    if not isinstance(data, dict) or set(data) - set(known):
        raise MismatchError(f"arguments: expected some of {known}, found {str(data)[:80]}.")
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    if found.get("class_weight") is not None and not isinstance(found["class_weight"], str):
        found["class_weight"] = dict(found["class_weight"])
    for name in set(OF_THE_MODEL) & set(known) - set(found):
        if name == "optimizer":
            found[name] = type(model.optimizer).from_config(model.optimizer.get_config())
        elif name == "loss":
            found[name] = losses.get(model.loss)
        elif len(model.layers) > 1:
            found[name] = model.layers[0].activation
    return found


# --- what was learned -------------------------------------------------------------------------------------------------


def _read_features(data: Any) -> tuple[int, Array | None]:
    count, names = data["count"], data["names"]
    if type(count) is not int or count < 1:
        raise MismatchError(f"features: expected their number, found {count!r}.")
    if names is None:
        return count, None
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        raise MismatchError(f"features: expected {count} names.")
    return count, np.asarray(names, dtype=object)


def _read_history(data: Any) -> dict[str, list[float]]:
    if not isinstance(data, dict) or "loss" not in data:
        raise MismatchError("history: expected an object with the numbers of 'loss'.")
    found = {name: [np.nan if n is None else n for n in line] for name, line in data.items()}
    return {name: checked_numbers(line, f"history: {name[:40]}").tolist() for name, line in found.items()}


def _checked_model(model: Any, columns: Columns, units: int) -> Sequential:
    shapes = ((None, columns.width), (None, units), columns.dtype)
    if not isinstance(model, Sequential):
        raise MismatchError(f"expected a Sequential as the network, found a {type(model).__name__}.")
    found = (model.input_shape, model.output_shape, model.dtype_policy.name)
    if found != shapes:
        raise MismatchError(f"the network's input, output and dtype are {found}, and its data needs {shapes}.")
    return model


def labels_config(labels: Array) -> dict[str, Any]:
    """Labels as JSON data. ValueError for those that JSON lacks, such as dates."""
    kind = "str" if labels.dtype.kind == "U" else labels.dtype.name
    found = labels.tolist()
    if kind not in LABELS or not all(isinstance(label, (bool, int, float, str)) for label in found):
        raise ValueError(f"classes of {labels.dtype} cannot be saved, only strings and numbers: {labels[:3]}.")
    return {"values": found, "dtype": kind}


def read_labels(data: Any) -> Array:
    """What `labels_config` wrote: two labels or more, all different, sorted."""
    if data["dtype"] not in LABELS or not isinstance(data["values"], list):
        raise MismatchError(f"classes: expected a list of labels, found {str(data)[:80]}.")
    values = data["values"]
    found = np.asarray(values, dtype=data["dtype"])
    if len({type(value) for value in values}) != 1 or found.ndim != 1 or found.tolist() != values:
        raise MismatchError(f"classes: expected labels of one kind, {data['dtype']}, found {str(values)[:80]}.")
    if len(found) < 2 or not np.array_equal(np.unique(found), found):
        raise MismatchError(f"classes: expected 2 or more, all different and sorted, found {str(values)[:80]}.")
    return found
