"""Adapters in Keras's weights files and archives: merged where Keras looks, apart where only fanin does.

::

    layers/dense/vars/0                              kernel + scale A @ B, what Keras multiplies by
    fanin_adapters/layers/dense/vars/kernel          the kernel alone
    fanin_adapters/layers/dense/vars/ann_kernel_a    A, and so on

An archive's config has, beside Keras's keys, "adapters": path -> numbers of the adapters, which one is active, and what
is frozen for which. Of Keras's own adapter only the rank stands beside the layer's options.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fanin.errors import FormatError, MismatchError
from fanin.formats.hdf5 import Group, groups
from fanin.kernels import Adapter
from fanin.layers.base.adapted import INACTIVE, Adapted
from fanin.layers.base.frozen import described_held, release, set_described_held
from fanin.layers.base.uninitialized import uninitialized_weights

_ROOT = "fanin_adapters"
_NUMBERS = ("name", "rank", "alpha", "dropout", "rslora", "factor")


def with_adapters(placed: Iterable[Group]) -> list[Group]:
    """What to write: each kernel merged with its active adapter, and behind all, kernels and adapters apart."""
    merged, apart = [], []
    for group in placed:
        own = apart_from(group)
        if own is not None:
            assert isinstance(group.owner, Adapted)
            scheme = group.owner._low_rank()
            values = scheme.base.pack(scheme.dense(group.owner).detach())
            in_place = {id(getattr(group.owner, name)): value for name, value in values.items()}
            group = replace(group, tensors=[in_place.get(id(tensor), tensor) for tensor in group.tensors])
            apart.append(own)
        merged.append(group)
    return merged + apart


def apart_from(group: Group) -> Group | None:
    """Where a layer's base and adapters are, by the names of their tensors; None for a layer without adapters."""
    layer = group.owner
    if not isinstance(layer, Adapted) or not layer.adapters:
        return None
    scheme = layer._low_rank()
    tensors = {name: layer._base_tensor(name) for name in layer._base_names()}
    for name in layer.adapters:
        tensors |= {tensor: getattr(layer, tensor) for tensor in scheme.pair_names(name)}
    path = f"{_ROOT}/{group.path}" if group.path else _ROOT
    return Group(path, None, list(tensors.values()), tuple(tensors))


# --- the config of an archive -----------------------------------------------------------------------------------------


def describe(model: nn.Module) -> dict[str, Any]:
    """The adapters of a model, and what is frozen for them, as plain JSON data by path; {} if there are none."""
    found = {}
    for group in groups(model):
        assert group.owner is not None
        told: dict[str, Any] = {}
        if isinstance(group.owner, Adapted) and group.owner.adapters:
            scheme = group.owner._low_rank()
            told["adapters"] = [{key: getattr(each, key) for key in _NUMBERS} for each in scheme.adapters]
            told["active"] = scheme.merged if group.owner._keeps_base() else scheme.active
        held = described_held(group.owner)
        if held:
            told["held"] = held
        if told:
            found[group.path] = told
    return found


def leave_out_alpha(config: Any) -> None:
    """Take "lora_alpha" out of the configs of Keras's layers: `describe` tells it, Keras 3.15 drops it as it builds the
    layer, and Keras 3.6 opens no archive that has it."""
    waiting = [config]
    for part in waiting:  # grows while it is walked
        if isinstance(part, dict):
            if part.get("class_name") in ("Dense", "Embedding") and part.get("module") == "keras.layers":
                part["config"].pop("lora_alpha", None)
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def rebuild(model: nn.Module, described: Any, size: int) -> None:
    """Give a model the adapters that `describe` told of, their tensors without values and of at most `size` bytes.

    Raises a FormatError for anything else.
    """
    owners = {group.path: group.owner for group in groups(model)}
    if not isinstance(described, dict) or not all(isinstance(told, dict) for told in described.values()):
        raise MismatchError("adapters: expected path -> what is there.")
    for path, told in described.items():
        layer = owners.get(path)
        if layer is None:
            raise MismatchError(f"adapters: the model has no layer at {path[:100]!r}.")
        try:
            with uninitialized_weights(size):
                size -= _rebuild_layer(layer, told)
        except FormatError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            raise MismatchError(f"adapters at {path[:100]!r}: {error}") from None


def _rebuild_layer(layer: nn.Module, told: dict[str, Any]) -> int:
    """The bytes of the adapters that were made."""
    adapters = [_adapter(each) for each in told.get("adapters", [])]
    size = 0
    if isinstance(layer, Adapted):
        for name in layer.adapters:
            layer._detach(name)
        for adapter in adapters:
            layer._attach(adapter)
            pair = layer._low_rank().pair_names(adapter.name)
            size += sum(getattr(layer, name).numel() * getattr(layer, name).itemsize for name in pair)
        if adapters:
            layer._activate(told.get("active"))
    elif adapters:
        raise ValueError(f"a {type(layer).__name__} takes none.")
    set_described_held(layer, told.get("held", {}))
    if adapters and told.get("active") is not None:  # it idled if it was saved while merged, and acts from now on
        assert isinstance(layer, Adapted)
        release(layer, INACTIVE, layer._low_rank().pair_names(told["active"]))
    return size


def _adapter(numbers: Any) -> Adapter:
    if not isinstance(numbers, dict) or set(numbers) != set(_NUMBERS):
        raise ValueError(f"expected {', '.join(_NUMBERS)}, found {str(numbers)[:100]}.")
    return Adapter(**numbers)


# --- files without adapters -------------------------------------------------------------------------------------------


def start_anew(layer: Adapted) -> None:
    """Fill all adapters of a layer as new ones: it computes what its kernel says, and can train.

    Keras sets A and B to zero, where their gradients vanish. The global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for adapter in layer.adapters.values():
            for slot in layer._low_rank().pair(adapter, *layer._sizes()):
                layer._draw(slot)
