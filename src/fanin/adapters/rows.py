"""One batch, many adapters: which adapter acts in which row."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from fanin.adapters.targets import adapted
from fanin.kernels.rows import opened, sorted_rows
from fanin.layers.base.adapted import INACTIVE, Adapted
from fanin.layers.base.frozen import release

_thawing = threading.Lock()


@contextmanager
def rows(module: nn.Module, names: Iterable[str | None]) -> Iterator[None]:
    """Inside the block, each row of the batch has an adapter of its own:

    outputs[n] = base(inputs[n]) + scale_g (inputs[n] @ A_g) @ B_g, where g = names[n]; the base alone where it is None,
    and in layers that have no adapter g.

    The adapters may differ in rank, scale, dropout and in the layers that have them. Their products are two grouped
    ones for each layer, however many adapters there are and however unevenly the rows fall to them, and only rows with
    an adapter there take part; the rows are sorted once, on entering.

    Args:
        module: any model or layer with adapters. Other modules called inside the block are as ever.
        names: for each row of the batch, the first axis of the inputs (B, ...) of each layer, a name or None.

    Training works as with one adapter: each adapter's A and B are Parameters of their own, for any optimizer, and only
    adapters that occur in the batch take part and get gradients. `fit`, a compiled step, train mode and any call that
    records gradients let those adapters train, as `set_active` does for one; `set_active` ends it. Inference leaves as
    it was what trains: `predict`, `compile_predict`, calls under `torch.no_grad`. Which adapter is active does not
    matter inside.

    Blocks nest, the innermost holds for its module; each thread and each task has its own. In `fit` all batches have
    these names, so it takes batch_size=len(names) and shuffle=False. Parts that are recomputed in the backward pass
    (`torch.utils.checkpoint`) need it to run inside the block.

    Raises ValueError on entering for a name that no layer has, and, naming the layers, while an adapter is merged; in a
    call, naming the layer, for inputs with another number of rows. TypeError for anything but names.

    A model of fanin takes the names at the call, too: `model(x, adapter=["ann", None, "bob"])`.

    >>> import torch, fanin
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.ones_(layer.weight)
    >>> _ = fanin.adapters.add(layer, "ann", rank=1, a_initializer="ones", b_initializer="ones")
    >>> _ = fanin.adapters.add(layer, "bob", rank=2, a_initializer="ones", b_initializer="ones")
    >>> with fanin.adapters.rows(layer, ["ann", None, "bob"]):
    ...     layer(torch.ones(3, 2)).tolist()
    [[4.0], [2.0], [6.0]]
    """
    wanted = _checked(names)
    occurring = dict.fromkeys(name for name in wanted if name is not None)
    layers = adapted(module)
    alike: dict[frozenset[str], dict[Adapted, str]] = {}  # layers in which the same rows have an adapter
    for path, layer in layers.items():
        alike.setdefault(frozenset(occurring.keys() & layer.adapters.keys()), {})[layer] = path
    _refuse(module, layers, sorted(occurring.keys() - frozenset().union(*alike)))
    let_train = _Thaw(alike)
    weight = next(module.parameters(), None)
    device = torch.device("cpu") if weight is None else weight.device
    parts = [
        sorted_rows(module, paths, [name if name in acting else None for name in wanted], device, let_train)
        for acting, paths in alike.items()
    ]
    with opened(parts):
        if module.training and torch.is_grad_enabled():
            let_train()
        yield


class _Thaw:
    """Lets the adapters of a block train, once: what stood in the place of a weight when the block was entered."""

    def __init__(self, alike: Mapping[frozenset[str], Iterable[Adapted]]):
        acting = [(layer, name) for names, layers in alike.items() for layer in layers for name in names]
        tensors = [(layer, tensor) for layer, name in acting for tensor in layer._low_rank().pair_names(name)]
        self._weights = [(layer, tensor, layer._parameters.get(tensor)) for layer, tensor in tensors]

    def __call__(self) -> None:
        if not self._weights:
            return
        with _thawing:
            # A tracer or functional_call may have put another tensor there.
            waiting = [each for each in self._weights if each[0]._parameters.get(each[1]) is not each[2]]
            for layer, tensor, weight in self._weights:
                if layer._parameters.get(tensor) is weight:
                    release(layer, INACTIVE, [tensor])
            self._weights = waiting


def _checked(names: Iterable[str | None]) -> list[str | None]:
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise TypeError(f"rows: names is a list with a name or None for each row of the batch, found {names!r}.")
    wanted = list(names)
    for row, name in enumerate(wanted):
        if name is not None and not isinstance(name, str):
            raise TypeError(f"rows: row {row} needs the name of an adapter or None, found {name!r}.")
    return wanted


def _refuse(module: nn.Module, layers: Mapping[str, Adapted], lacking: Sequence[str]) -> None:
    """ValueError for names that no layer has, and for merged adapters; all faults at once."""
    faults = []
    if lacking:
        known = sorted({name for layer in layers.values() for name in layer.adapters})
        faults.append(f"no layer has {_shown(lacking)}; there is {_shown(known) or 'none'}")
    for path, layer in layers.items():
        if (merged := layer._low_rank().merged) is not None:
            faults.append(f"{path or type(layer).__name__}: the adapter {merged!r} is merged: unmerge first")
    if faults:
        raise ValueError(f"{type(module).__name__} cannot mix these adapters: {'. '.join(faults)}.")


def _shown(names: Iterable[str]) -> str:
    shown = [repr(name) for name in names]
    return f"{', '.join(shown[:20])}{f' and {len(shown) - 20} more' if len(shown) > 20 else ''}"
