"""Where a module lives: arrays that it is given go there."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """The device of the first weight or buffer that has memory; the CPU for a module without any."""
    tensors = chain(module.parameters(), module.buffers())
    return next((one.device for one in tensors if one.device.type != "meta"), torch.device("cpu"))
