"""The short-time Fourier transform as a convolution kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanin.errors import nearest
from fanin.initializers.base import Initializer, family, resolved_dtype

# Sums of cosines: sum_k (-1)^k a_k cos(2 pi k t), t from 0 to 1 across the window.
_COSINES = {
    "boxcar": (1.0,),
    "hann": (0.5, 0.5),
    "hamming": (0.54, 0.46),
    "blackman": (0.42, 0.5, 0.08),
    "nuttall": (0.3635819, 0.4891775, 0.1365995, 0.0106411),
    "blackmanharris": (0.35875, 0.48829, 0.14128, 0.01168),
    "flattop": (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368),
}
_OTHERS: dict[str, Callable[[Any, int], Any]] = {
    "bartlett": lambda t, n: 1 - np.abs(2 * t - 1),
    "triang": lambda t, n: 1 - np.abs(2 * t - 1) * (n - 1) / (n + n % 2),
    "cosine": lambda t, n: np.sin(np.pi * (t * (n - 1) + 0.5) / n),
    "bohman": lambda t, n: (1 - abs(2 * t - 1)) * np.cos(np.pi * (2 * t - 1)) + np.sin(np.pi * abs(2 * t - 1)) / np.pi,
    "barthann": lambda t, n: 0.62 - 0.48 * np.abs(t - 0.5) + 0.38 * np.cos(2 * np.pi * (t - 0.5)),
    "lanczos": lambda t, n: np.sinc(2 * t - 1),
    "exponential": lambda t, n: np.exp(-np.abs(t - 0.5) * (n - 1)),
    "tukey": lambda t, n: np.sin(2 * np.pi * np.minimum(np.minimum(t, 1 - t), 0.25)) ** 2,
    "parzen": lambda t, n: _parzen(np.abs(2 * t - 1) * (n - 1) / n, (n - 1) / (2 * n)),
}


def _parzen(d: Any, knee: float) -> Any:
    return np.where(d <= knee, 1 - 6 * d**2 + 6 * d**3, 2 * (1 - d) ** 3)


def _window(name: str, length: int, periodic: bool) -> np.ndarray[Any, Any]:
    """The window of that name in float64; a periodic one lacks its last point, which would repeat the first."""
    if length == 1:
        return np.ones(1)
    size = length + periodic
    t = np.arange(size) / (size - 1)
    if name in _COSINES:
        values = sum((-1) ** k * a * np.cos(2 * np.pi * k * t) for k, a in enumerate(_COSINES[name]))
    else:
        values = _OTHERS[name](t, size)
    return np.asarray(values, dtype=np.float64)[:length]


@family.entry("STFTInitializer")
class STFT(Initializer):
    """One part of a windowed Fourier basis, as a kernel (T, 1, F / 2 + 1): T the frame length, F the FFT length.

    Entry (t, 0, f) is window(t) * cos(-2 pi t f / F) / s for the real part, sin for the imaginary one.

    Args:
        side: "real" (default) or "imag".
        window: a name ("hann" by default; hamming, blackman, bartlett, ...), T values, or None for 1 everywhere.
        scaling: s is sqrt(sum(window^2)) for "density" (default), sum(|window|) for "spectrum", 1 for None or without
            a window.
        periodic: whether the window repeats after T steps (True), or is symmetric (False, the default).

    ValueError for an unknown side, window or scaling, and, at the call, for a shape that is not (T, 1, F / 2 + 1) or
    does not fit the window.
    """

    def __init__(
        self,
        side: str = "real",
        window: str | Sequence[float] | None = "hann",
        scaling: str | None = "density",
        periodic: bool = False,
    ):
        known = {**_COSINES, **_OTHERS}
        if side not in ("real", "imag"):
            raise ValueError(f"side must be 'real' or 'imag', found {side!r}.")
        if isinstance(window, str) and window not in known:
            raise ValueError(f"Unknown window {window!r}.{nearest(window, known)}")
        if scaling not in (None, "density", "spectrum"):
            raise ValueError(f"scaling must be 'density', 'spectrum' or None, found {scaling!r}.")
        self.side = side
        self.window = window if window is None or isinstance(window, str) else np.asarray(window, float).tolist()
        self.scaling = scaling
        self.periodic = periodic

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new tensor of shape (T, 1, F / 2 + 1), computed in float64 and rounded to `dtype`."""
        if len(shape) != 3 or shape[1] != 1:
            raise ValueError(f"STFT makes kernels of shape (T, 1, F / 2 + 1), found {tuple(shape)}.")
        length, _, bins = shape
        turns = np.outer(np.arange(length), np.arange(bins)) / max(2 * (bins - 1), 1)
        basis = (np.cos if self.side == "real" else np.sin)(-2 * np.pi * turns)
        if self.window is not None:
            named = isinstance(self.window, str)
            window = _window(self.window, length, self.periodic) if named else np.asarray(self.window)
            if window.shape != (length,):
                raise ValueError(f"The window has shape {window.shape}, but the kernel needs ({length},).")
            scale = {"density": np.sqrt(np.sum(window**2)), "spectrum": np.sum(np.abs(window)), None: 1.0}
            basis = basis * window[:, None] / scale[self.scaling]
        return torch.tensor(basis[:, None, :], dtype=resolved_dtype(dtype))

    def get_config(self) -> dict[str, Any]:
        """{"side", "window", "periodic", "scaling"}."""
        return {"side": self.side, "window": self.window, "periodic": self.periodic, "scaling": self.scaling}
