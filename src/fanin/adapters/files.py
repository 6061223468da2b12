"""Adapters by themselves in files: the folder of PEFT, both ways."""

from __future__ import annotations

import os
from typing import cast

import torch
from torch import nn

from fanin.adapters.adding import attach_all, remove, set_active
from fanin.adapters.report import Report, report
from fanin.adapters.targets import adaptable, having
from fanin.formats import adapters as folders
from fanin.formats import limits
from fanin.formats.faults import Faults
from fanin.formats.state import check_built
from fanin.kernels import Adapter
from fanin.layers.base.adapted import Adapted
from fanin.layers.embedding import Embedding


def save(module: nn.Module, name: str, folder: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write an adapter, without the model, as PEFT writes one: `adapter_config.json`, `adapter_model.safetensors`.

    Args:
        module: a model with the adapter.
        name: its name. The files do not say it: give each adapter a folder of its own.
        folder: where to; made if it is missing.
        overwrite: whether an adapter that is there may be replaced; it is replaced only once the new one is complete.

    `peft.PeftModel.from_pretrained` reads it for a model with a `torch.nn.Linear` (or `Embedding`) at the same paths.
    The factor of `fanin.adapters.scale` becomes part of alpha. Which other weights train is not saved.

    Raises ValueError if no layer has the adapter, for a layer that is not built, for layers that differ in dropout or
    rslora, which the format has once, and for an existing adapter with overwrite=False; OSError for a folder that
    cannot be written to.

    >>> import tempfile, torch, fanin
    >>> one, other = torch.nn.Sequential(torch.nn.Linear(4, 2)), torch.nn.Sequential(torch.nn.Linear(4, 2))
    >>> _ = fanin.adapters.add(one, "ann", rank=2, alpha=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fanin.adapters.save(one, "ann", f"{folder}/ann")
    ...     print(fanin.adapters.load(other, f"{folder}/ann"))
    0: Linear, ann (rank 2, scale 2), active: ann
    trained: 12 of 22 weights; adapters take 48 bytes
    """
    layers = having(module, name)
    check_built(module)
    adapters = {path: layer.adapters[name] for path, layer in layers.items()}
    shared = {(adapter.dropout, adapter.rslora) for adapter in adapters.values()}
    if len(shared) > 1:
        raise ValueError(
            f"The layers with the adapter {name!r} differ in dropout or rslora, {sorted(shared)}; a file has one."
        )
    pairs, values = {}, {}
    for path, layer in layers.items():
        adapter = adapters[path]
        assert adapter.alpha is not None  # resolved when it was made
        alpha = adapter.factor * adapter.alpha
        pairs[path] = folders.Pair(isinstance(layer, Embedding), adapter.rank, alpha, layer._sizes())
        a, b = layer._low_rank().pair_names(name)
        values[path] = getattr(layer, a), getattr(layer, b)
    others = [path for path, _ in module.named_modules() if path not in pairs]
    dropout, rslora = shared.pop()
    folders.write(os.fspath(folder), pairs, values, others, dropout, rslora, overwrite)


def load(module: nn.Module, folder: str | os.PathLike[str], name: str | None = None, trainable: bool = True) -> Report:
    """Read an adapter that `save` or PEFT wrote, add it to the model and let it act, as `fanin.adapters.add` does.

    Args:
        module: a built model with a Dense, Embedding or `torch.nn.Linear` at each path in the file, of the same sizes.
        folder: where the files are.
        name: what to call the adapter; default the last part of `folder`. PEFT's own default is "default".
        trainable: whether it goes on training. If not, nothing in the module trains until you thaw something.

    Floats of any width are read. All else in the module is frozen; adapters that are there stay, idle. All or nothing:
    names, ranks and sizes of the file are compared with each other and with the model before any number is read.

    Returns the `report`. Raises ValueError for a name that is taken and whatever else `add` refuses; OSError for files
    that cannot be read; else a FormatError with all mismatches: UnsafeError for a pickle (`adapter_model.bin`),
    MismatchError for an adapter of another kind than LoRA, for options that change what it computes (`use_dora`,
    `lora_bias`, `modules_to_save`, ...), for layers that the model lacks or that the file lacks; CorruptError. Nothing
    that the files name is opened or imported.
    """
    check_built(module)
    shown = os.fspath(folder)
    found = folders.Folder(shown)
    name = _named_after(shown) if name is None else name
    with limits.naming(found.path, "tensors"):
        _compare(module, found)
    made = {path: _adapter(name, pair, found) for path, pair in found.pairs.items()}
    values = found.values()
    with torch.random.fork_rng(devices=[]):  # A is drawn, then written
        attach_all(module, made)
    try:
        layers = having(module, name)
        with torch.no_grad():
            for path, pair in values.items():
                for tensor, value in zip(layers[path]._low_rank().pair_names(name), pair, strict=True):
                    getattr(layers[path], tensor).copy_(value)
        set_active(module, name)
    except BaseException:
        remove(module, name)
        raise
    for layer in layers.values():
        for tensor in layer._low_rank().pair_names(name):
            getattr(layer, tensor).requires_grad_(trainable)
    return report(module)


def _named_after(folder: str) -> str:
    """The last part of the path. ValueError, saying what to do, where no adapter can have that name."""
    try:
        return Adapter(os.path.basename(os.path.abspath(folder)), 1).name
    except ValueError as error:
        raise ValueError(f"{error} It is the folder's: give another as name=.") from None


def _compare(module: nn.Module, found: folders.Folder) -> None:
    """MismatchError unless the layers in the file are layers of the model, and none is left out."""
    layers = adaptable(module)
    faults = Faults()
    for path, pair in found.pairs.items():
        layer = layers.get(path)
        if layer is None:
            there = dict(module.named_modules()).get(path)
            kind = "no layer" if there is None else f"a {type(there).__name__}, which takes no adapter,"
            faults.found.append(f"the model has {kind} at {path[:100]!r}")
        elif isinstance(layer, Embedding) != pair.embedding:
            faults.found.append(f"{path!r} is {'an' if pair.embedding else 'no'} embedding in the file only")
        elif _sizes(layer) != pair.sizes:
            faults.found.append(f"{path!r} is {_arrow(pair.sizes)} in the file, {_arrow(_sizes(layer))} in the model")
    missing = [path for path in found.config.targeted(layers) if path not in found.pairs]
    faults.found += [f"{path!r} is missing, though target_modules names it" for path in missing]
    faults.check()


def _sizes(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, Adapted):
        return layer._sizes()
    linear = cast(nn.Linear, layer)
    return linear.in_features, linear.out_features


def _arrow(sizes: tuple[int, int]) -> str:
    return " -> ".join(map(str, sizes))


def _adapter(name: str, pair: folders.Pair, found: folders.Folder) -> Adapter:
    """An alpha that is not positive, as PEFT may have it, becomes the factor of one that is."""
    dropout, rslora = found.config.dropout, found.config.rslora
    if pair.alpha > 0:
        return Adapter(name, pair.rank, pair.alpha, dropout, rslora)
    return Adapter(name, pair.rank, None, dropout, rslora, factor=pair.alpha / pair.rank)
