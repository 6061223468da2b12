"""Where a module lives: arrays that it is given go there."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """The device of the first weight or buffer that has memory; without any the one that a layer was made for or moved
    to, or the CPU."""
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.device.type != "meta":
            return tensor.device
    home = module.__dict__.get("_home")
    return torch.device("cpu") if home is None or home.type == "meta" else home
