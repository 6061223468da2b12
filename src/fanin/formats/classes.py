"""The class names of a config, all looked at before any object is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fanin.dtypes import DTYPES
from fanin.errors import MismatchError, TooLargeError, UnsafeError
from fanin.layers.base.layer import Layer
from fanin.registry import find_class, get_registered_object

_RUNS_CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer")
_THRESHOLDS = 100_000
_FREE_LAYERS, _BYTES_PER_LAYER = 100, 500  # each layer has two groups in the weights file
_SHOWN = 20


def most_layers(size: int) -> int:
    """How many layers a weights file of this many bytes has room for."""
    return _FREE_LAYERS + size // _BYTES_PER_LAYER


def check_classes(config: Any, most: int) -> None:
    """All class names of a config at once. UnsafeError for those that carry code, MismatchError for unknown ones."""
    kinds: dict[str, str] = {}
    found: dict[str, list[str]] = {"unsafe": [], "unknown": []}
    layers = in_compile_config = 0
    for place, described in _objects(config, ""):
        label = _label(described)
        if label not in kinds:
            kinds[label] = _kind(described)
            if kinds[label] in found:
                found[kinds[label]].append(f"{label} at {place}")
                in_compile_config += kinds[label] == "unknown" and place.startswith("compile_config")
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
        apart = " compile=False leaves the compile_config out." if in_compile_config == len(found["unknown"]) else ""
        raise MismatchError(
            f"it names what fanin does not know: {', '.join(found['unknown'][:_SHOWN])}{more}. Register your own "
            f"classes and functions with @fanin.saving.register_keras_serializable(), or pass custom_objects={{...}}."
            f"{apart}"
        )
    if layers > most:
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
