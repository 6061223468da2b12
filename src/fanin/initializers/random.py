"""Random initializers with a fixed distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fanin import arguments
from fanin.dtypes import dtype_name
from fanin.initializers.base import Initializer, family, resolved_dtype


class Random(Initializer):
    """Draws from torch's global generator, or with an integer seed from a new one at each call."""

    def __init__(self, seed: Any = None):
        if isinstance(seed, Mapping) and seed.get("class_name") == "SeedGenerator":
            seed = seed.get("config", {}).get("seed")  # from a file of Keras's
        self.seed = arguments.integer("seed", seed)

    def _draw(self, shape: Sequence[int], dtype: Any, fill: Callable[[Tensor, torch.Generator | None], Any]) -> Tensor:
        """A new tensor that `fill(tensor, generator)` has filled in place, in float32 or float64."""
        dtype = resolved_dtype(dtype)
        if not dtype.is_floating_point:
            raise ValueError(f"{type(self).__name__} draws floats, found the dtype {dtype_name(dtype)}.")
        values = torch.empty(tuple(shape), dtype=dtype if dtype == torch.float64 else torch.float32)
        generator = None
        if self.seed is not None and not values.is_meta:
            generator = torch.Generator(values.device).manual_seed(self.seed & 0xFFFFFFFF)
        fill(values, generator)
        return values.to(dtype)

    def get_config(self) -> dict[str, Any]:
        """{"seed": ...}."""
        return {"seed": self.seed}


# The standard deviation of a standard normal cut at -2 and 2.
_MASS = math.erf(math.sqrt(2.0))
CUT_STDDEV = math.sqrt(1.0 - 4.0 * math.exp(-2.0) / math.sqrt(2.0 * math.pi) / _MASS)


def fill_truncated(values: Tensor, mean: float, stddev: float, generator: torch.Generator | None) -> None:
    """Fill with a normal distribution cut at 2 standard deviations, by inverting its distribution function."""
    values.uniform_(-_MASS, _MASS, generator=generator).erfinv_().mul_(math.sqrt(2.0) * stddev).add_(mean)
    values.clamp_(mean - 2.0 * stddev, mean + 2.0 * stddev)


@family.entry("normal")
class RandomNormal(Random):
    """Normally distributed values.

    Args:
        mean: default 0.
        stddev: the standard deviation, default 0.05. ValueError if negative.
        seed: an integer for the same values at each call; None, the default, for fresh ones.

    >>> RandomNormal(seed=1)((2, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        self.mean = arguments.finite("mean", mean)
        self.stddev = arguments.plain("stddev", stddev)
        super().__init__(seed)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new tensor; a float dtype."""
        return self._draw(shape, dtype, lambda values, g: values.normal_(self.mean, self.stddev, generator=g))

    def get_config(self) -> dict[str, Any]:
        """{"seed": ..., "mean": ..., "stddev": ...}."""
        return {**super().get_config(), "mean": self.mean, "stddev": self.stddev}


@family.entry()
class TruncatedNormal(Random):
    """Normally distributed values, none further than 2 * stddev from the mean.

    Args:
        mean: default 0.
        stddev: the standard deviation before the cut, default 0.05; after it, 0.8796 of that. ValueError if negative.
        seed: an integer for the same values at each call; None, the default, for fresh ones.

    >>> bool((TruncatedNormal(stddev=1.0)((1000,)).abs() <= 2).all())
    True
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        self.mean = arguments.finite("mean", mean)
        self.stddev = arguments.plain("stddev", stddev)
        super().__init__(seed)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new tensor; a float dtype."""
        return self._draw(shape, dtype, lambda values, g: fill_truncated(values, self.mean, self.stddev, g))

    def get_config(self) -> dict[str, Any]:
        """{"seed": ..., "mean": ..., "stddev": ...}."""
        return {**super().get_config(), "mean": self.mean, "stddev": self.stddev}


@family.entry("uniform")
class RandomUniform(Random):
    """Values spread evenly from `minval` to `maxval`.

    Args:
        minval: default -0.05.
        maxval: default 0.05. ValueError if it is below minval.
        seed: an integer for the same values at each call; None, the default, for fresh ones.

    >>> bool((RandomUniform(2.0, 3.0)((100,)) >= 2.0).all())
    True
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None):
        self.minval = arguments.finite("minval", minval)
        self.maxval = arguments.finite("maxval", maxval)
        if self.minval > self.maxval:
            raise ValueError(f"minval must not exceed maxval, found {minval!r} and {maxval!r}.")
        super().__init__(seed)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new tensor; a float dtype."""
        return self._draw(shape, dtype, lambda values, g: values.uniform_(self.minval, self.maxval, generator=g))

    def get_config(self) -> dict[str, Any]:
        """{"seed": ..., "minval": ..., "maxval": ...}."""
        return {**super().get_config(), "minval": self.minval, "maxval": self.maxval}


@family.entry("OrthogonalInitializer")
class Orthogonal(Random):
    """`gain` times a uniformly drawn orthogonal matrix: orthonormal columns, or rows if there are fewer of them.

    A shape (a, ..., b, units) of more than two axes is filled as the matrix (a * ... * b, units).

    Args:
        gain: default 1.
        seed: an integer for the same values at each call; None, the default, for fresh ones.

    ValueError, at the call, for a shape of fewer than two axes.
    Source: Saxe et al. 2014, https://arxiv.org/abs/1312.6120

    >>> q = Orthogonal()((5, 3))
    >>> bool(torch.allclose(q.T @ q, torch.eye(3), atol=1e-5))
    True
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None):
        self.gain = arguments.finite("gain", gain)
        super().__init__(seed)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new tensor; a float dtype."""
        if len(shape) < 2:
            raise ValueError(f"Orthogonal needs a shape of at least two axes, found {tuple(shape)}.")
        dtype = resolved_dtype(dtype)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        normal = self._draw(
            (max(rows, columns), min(rows, columns)),
            torch.promote_types(dtype, torch.float32) if dtype.is_floating_point else dtype,
            lambda values, g: values.normal_(generator=g),
        )
        q, r = torch.linalg.qr(normal)
        q *= torch.where(torch.diagonal(r) < 0, -1.0, 1.0).to(q.dtype)  # else q would not be uniform
        q = q.t() if rows < columns else q
        values: Tensor = q.mul(self.gain).reshape(tuple(shape)).to(dtype)
        return values

    def get_config(self) -> dict[str, Any]:
        """{"seed": ..., "gain": ...}."""
        return {**super().get_config(), "gain": self.gain}
