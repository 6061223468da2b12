"""What adapters a model has, where, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fanin.adapters.targets import adaptable
from fanin.kernels import Adapter
from fanin.layers.base.adapted import Adapted


@dataclass(frozen=True)
class Adapters:
    """The adapters of one layer.

    Attributes:
        path: where the layer is in the model.
        kind: its class.
        adapters: their numbers, in order.
        active: the name of the one that acts, or None.
        merged: the name of the one that is merged, or None.
        bytes: what their tensors take.
    """

    path: str
    kind: str
    adapters: tuple[Adapter, ...]
    active: str | None
    merged: str | None
    bytes: int

    def __str__(self) -> str:
        each = ", ".join(f"{a.name} (rank {a.rank}, scale {a.scale:g})" for a in self.adapters)
        state = f"merged: {self.merged}" if self.merged is not None else f"active: {self.active}"
        return f"{self.path or '(itself)'}: {self.kind}, {each}, {state}"


@dataclass(frozen=True)
class Report:
    """The adapters of a model; `print` it for one line a layer.

    Attributes:
        layers: the layers that have adapters.
        without: the paths of layers that could have one and have none.
        trained: how many weights (single numbers) train now.
        total: how many there are, adapters included.
        bytes: what the tensors of all adapters take.
    """

    layers: tuple[Adapters, ...]
    without: tuple[str, ...]
    trained: int
    total: int
    bytes: int

    def __str__(self) -> str:
        lines = [str(layer) for layer in self.layers]
        lines += [f"without: {', '.join(self.without)}"] if self.without else []
        ending = f"trained: {self.trained:,} of {self.total:,} weights; adapters take {self.bytes:,} bytes"
        return "\n".join([*lines, ending])


def report(module: nn.Module) -> Report:
    """Which layers have adapters, which could, how many weights train, and what the adapters take.

    >>> import torch, fanin
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    >>> fanin.adapters.report(model).without
    ('0', '1')
    """
    layers, without = [], []
    for path, part in adaptable(module).items():
        if isinstance(part, Adapted) and part.adapters:
            layers.append(_of_layer(path, part))
        else:
            without.append(path)
    parameters = list(module.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    total = sum(p.numel() for p in parameters)
    return Report(tuple(layers), tuple(without), trained, total, sum(layer.bytes for layer in layers))


def _of_layer(path: str, layer: Adapted) -> Adapters:
    scheme = layer._low_rank()
    tensors = [getattr(layer, name) for name in layer._pair_names()]
    size = sum(tensor.numel() * tensor.itemsize for tensor in tensors)
    return Adapters(path, layer.saved_as, scheme.adapters, scheme.active, scheme.merged, size)
