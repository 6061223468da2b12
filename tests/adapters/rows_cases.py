"""What tests of mixed batches share: a module with four adapters, and each row under its own adapter alone."""

import torch
from torch import nn

from fanin import adapters
from fanin.layers import Dense, Embedding

NAMES = ["ann", "bob", "cid", "dan"]


class Tower(nn.Module):
    """Layers of all kinds, one of them in float64 or 16 bits if asked for."""

    def __init__(self, dtype="float32"):
        super().__init__()
        self.table = Embedding(7, 6, dtype=dtype)
        self.up = nn.Linear(6, 9, dtype=self.table.dtype_policy.variable)
        self.head = Dense(5, "relu", dtype=dtype)
        self.end = Dense(3, dtype=dtype)
        self(torch.zeros(1, dtype=torch.long))

    def forward(self, indices):
        x = self.table(indices).to(self.up.weight.dtype)
        return self.end(self.head(torch.tanh(self.up(x))))


def mixed(module, ranks=(2, 3, 1, 4), dropout=0.0):
    """The module with four adapters, all of other ranks and scales, that change what it computes."""
    for place, (name, rank) in enumerate(zip(NAMES, ranks, strict=True)):
        adapters.add(
            module, name, rank, alpha=1.5 + place, dropout=dropout, rslora=place == 2, target=lambda path, layer: True,
            b_initializer="glorot_uniform",
        )  # fmt: skip
    if any(weight.dtype == torch.float64 for weight in module.parameters()):
        module.double()
    return module


def row_by_row(module, names, inputs):
    """Each row under its own active adapter."""
    found = []
    for row, name in enumerate(names):
        adapters.set_active(module, name)
        found.append(module(inputs[row : row + 1]))
    return torch.cat(found)


def pairs_of(module, name):
    """An adapter's own parameters."""
    return [weight for key, weight in module.named_parameters() if key.rpartition(".")[2].startswith(f"{name}_")]
