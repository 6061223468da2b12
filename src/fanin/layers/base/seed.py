"""Where a layer's random numbers come from."""

from __future__ import annotations

from typing import Any

import torch

from fanin import arguments


class Seed:
    """Without a number, torch's global generator; with one, generators of the layer's own, one for each device.

    Their states go along in copies and pickles: a copy draws what the original would have drawn next.
    torch.compile does not take generators: there, each draw is a graph break.

    Args:
        seed: an integer or None.
        who: the layer, for messages: "Dropout".
    """

    def __init__(self, seed: Any, who: str):
        self.number = arguments.integer(f"{who}: seed", seed)
        self._generators: dict[torch.device, torch.Generator] = {}

    def generator(self, device: torch.device) -> torch.Generator | None:
        """What torch's random functions take as `generator=`."""
        if self.number is None or device.type == "meta":
            return None
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.number % 2**64)
        return self._generators[device]
