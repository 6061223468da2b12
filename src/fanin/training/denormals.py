"""Numbers too small for a normal float, which processors handle slowly, count as 0 while training.

The momentum of a weight without a gradient shrinks to such numbers within some hundred steps and stays there; Adam's
update then takes two to three times as long. TensorFlow and XLA do the same.
"""

from __future__ import annotations

import numpy as np
import torch

_TINY, _ONE = np.float32(1e-40), np.float32(1)


class flush_denormals:  # noqa: N801 - used as a function
    """Inside the block, in this thread, results below 1.2e-38 (float32) become 0; then it is as it was before."""

    def __enter__(self) -> None:
        self._flushed_before = bool(_TINY * _ONE == 0)
        torch.set_flush_denormal(True)

    def __exit__(self, *error: object) -> None:
        if not self._flushed_before:
            torch.set_flush_denormal(False)
