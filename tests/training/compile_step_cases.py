"""What tests of `compile_step` and `compile_predict` share: plain modules, data, the loop that a step stands for."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

import fanin
from fanin import losses


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.relu(self.first(x)))))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down, self.out = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6), nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.ones(()))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return self.out(x + self.scale * self.down(F.silu(self.up(self.norm(x)))))


MODULES = {
    "linear": lambda: nn.Linear(6, 3),
    "mlp": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)),
    "norms": lambda: nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)
    ),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.ELU(), nn.Linear(8, 3)),
    "tied": Tied,
    "norm first": lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)),
    "residual": Residual,
    "prelu": lambda: nn.Sequential(nn.Linear(6, 8), nn.PReLU(), nn.Linear(8, 3, bias=False)),
    "own layers": lambda: nn.Sequential(
        fanin.layers.Dense(8, "relu", kernel_regularizer="l2", input_dim=6), nn.Linear(8, 3)
    ),
    "parametrized": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.Linear(8, 3)),
}


def data(rows=5, classes=True, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, generator=generator).to(dtype)
    return x, torch.arange(rows) % 3 if classes else torch.randn(rows, 3, generator=generator).to(dtype)


def plain_step(module, loss, optimizer, x, y):
    """The loop that a compiled step stands for."""
    module.train()
    outputs = module(x)
    if isinstance(loss, (str, losses.Loss)):
        value = (losses.MeanSquaredError() if loss == "mse" else loss)(y, outputs)
    else:
        value = loss(outputs, y)
    for part in module.modules():
        if isinstance(part, fanin.Layer):
            value = value + sum(part.losses)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    optimizer.zero_grad()
    return value.detach()


def twins(name, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    module = MODULES[name]()
    return module.to(dtype), copy.deepcopy(module)


class ByValue(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        y = self.linear(x)
        return y if y.mean().item() > 0 else -y
