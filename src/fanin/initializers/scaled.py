"""Random initializers whose distribution is scaled to the shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fanin import arguments
from fanin.errors import nearest
from fanin.initializers.base import family
from fanin.initializers.random import CUT_STDDEV, Random, fill_truncated


def compute_fans(
    shape: Sequence[int], input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
) -> tuple[int, int]:
    """(fan_in, fan_out): how many inputs each output of a weight of that shape has, and outputs each input.

    () gives (1, 1), (n,) gives (n, n), (i, o) gives (i, o), and (a, ..., i, o) gives (a * ... * i, a * ... * o). When
    both `input_axes` and `output_axes` are given, the products over these axes; one without the other is not used.

    >>> compute_fans((3, 3, 16, 32))
    (144, 288)
    """
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)
    if len(shape) < 2:
        return (int(shape[0]), int(shape[0])) if len(shape) else (1, 1)
    field = math.prod(shape[:-2])
    return int(shape[-2] * field), int(shape[-1] * field)


_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")


def _axes(value: Any, name: str) -> list[int] | None:
    good = value is None or (isinstance(value, (list, tuple)) and all(map(arguments.is_whole, value)))
    if not good:
        raise ValueError(f"{name} must be a list of ints or None, found {value!r}.")
    return None if value is None else [int(axis) for axis in value]


@family.entry()
class VarianceScaling(Random):
    """Values with mean 0 and variance scale / n, where n is a fan of the shape.

    Args:
        scale: positive, default 1.
        mode: n is `fan_in` (default), `fan_out`, or their mean `fan_avg`, and at least 1; see `compute_fans`.
        distribution: "truncated_normal" (default; also called "normal"): normal, cut at 2 standard deviations, and
            widened so that the variance holds after the cut; "untruncated_normal"; or "uniform", between
            -sqrt(3 * scale / n) and sqrt(3 * scale / n).
        seed: an integer for the same values at each call; None, the default, for fresh ones.
        input_axes, output_axes: the axes of the shape that make up the fans; both or none.

    ValueError for a scale that is not positive and finite, an unknown mode or distribution, or a seed that is no int.
    Source: Glorot & Bengio 2010; He et al. 2015.

    >>> VarianceScaling(scale=3.0, mode="fan_avg", distribution="uniform")((2, 4)).abs().max().item() <= 3**0.5
    True
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        self.scale = arguments.finite("scale", scale)
        if self.scale <= 0:
            raise ValueError(f"scale must be positive, found {scale!r}.")
        if mode not in _MODES:
            raise ValueError(f"Unknown mode {mode!r}.{nearest(mode, _MODES)}")
        self.mode = mode
        self.distribution = str(distribution).lower()
        if self.distribution == "normal":
            self.distribution = "truncated_normal"
        if self.distribution not in _DISTRIBUTIONS:
            raise ValueError(f"Unknown distribution {distribution!r}.{nearest(distribution, _DISTRIBUTIONS)}")
        self.input_axes = _axes(input_axes, "input_axes")
        self.output_axes = _axes(output_axes, "output_axes")
        super().__init__(seed)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        """A new tensor; a float dtype."""
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        stddev = math.sqrt(self.scale / max(1.0, n))
        if self.distribution == "uniform":
            limit = math.sqrt(3.0) * stddev
            return self._draw(shape, dtype, lambda values, g: values.uniform_(-limit, limit, generator=g))
        if self.distribution == "untruncated_normal":
            return self._draw(shape, dtype, lambda values, g: values.normal_(0.0, stddev, generator=g))
        return self._draw(shape, dtype, lambda values, g: fill_truncated(values, 0.0, stddev / CUT_STDDEV, g))

    def _axes_config(self) -> dict[str, Any]:
        """The axes that were given: versions of Keras before 3.14 do not know these keys, so null ones are left out."""
        axes = {"input_axes": self.input_axes, "output_axes": self.output_axes}
        return {key: value for key, value in axes.items() if value is not None}

    def get_config(self) -> dict[str, Any]:
        """{"seed", "scale", "mode", "distribution"}, and the axes if they were given."""
        own = {"scale": self.scale, "mode": self.mode, "distribution": self.distribution}
        return {**super().get_config(), **own, **self._axes_config()}


class _Preset(VarianceScaling):
    """VarianceScaling with a fixed scale, mode and distribution."""

    _fixed: tuple[float, str, str]

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ):
        super().__init__(*self._fixed, seed=seed, input_axes=input_axes, output_axes=output_axes)

    def get_config(self) -> dict[str, Any]:
        """{"seed"}, and the axes if they were given."""
        return {"seed": self.seed, **self._axes_config()}


@family.entry()
class GlorotUniform(_Preset):
    """Uniform between -l and l, l = sqrt(6 / (fan_in + fan_out)): variance 2 / (fan_in + fan_out). Also called Xavier.

    Args: `seed`, `input_axes` and `output_axes` (all None), as in `VarianceScaling`.

    Source: Glorot & Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html

    >>> GlorotUniform()((300, 300)).abs().max().item() <= 0.1
    True
    """

    _fixed = (1.0, "fan_avg", "uniform")


@family.entry()
class GlorotNormal(_Preset):
    """Truncated normal of variance 2 / (fan_in + fan_out). Also called Xavier.

    Args: `seed`, `input_axes` and `output_axes` (all None), as in `VarianceScaling`.

    Source: Glorot & Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html
    """

    _fixed = (1.0, "fan_avg", "truncated_normal")


@family.entry()
class HeUniform(_Preset):
    """Uniform between -l and l, l = sqrt(6 / fan_in): variance 2 / fan_in, for relu. Also called Kaiming.

    Args: `seed`, `input_axes` and `output_axes` (all None), as in `VarianceScaling`.

    Source: He et al. 2015, https://arxiv.org/abs/1502.01852
    """

    _fixed = (2.0, "fan_in", "uniform")


@family.entry()
class HeNormal(_Preset):
    """Truncated normal of variance 2 / fan_in, for relu. Also called Kaiming.

    Args: `seed`, `input_axes` and `output_axes` (all None), as in `VarianceScaling`.

    Source: He et al. 2015, https://arxiv.org/abs/1502.01852
    """

    _fixed = (2.0, "fan_in", "truncated_normal")


@family.entry()
class LecunUniform(_Preset):
    """Uniform between -l and l, l = sqrt(3 / fan_in): variance 1 / fan_in.

    Args: `seed`, `input_axes` and `output_axes` (all None), as in `VarianceScaling`.

    Source: LeCun et al. 1998, "Efficient BackProp"; Klambauer et al. 2017 for selu.
    """

    _fixed = (1.0, "fan_in", "uniform")


@family.entry()
class LecunNormal(_Preset):
    """Truncated normal of variance 1 / fan_in.

    Args: `seed`, `input_axes` and `output_axes` (all None), as in `VarianceScaling`.

    Source: LeCun et al. 1998, "Efficient BackProp"; Klambauer et al. 2017 for selu.
    """

    _fixed = (1.0, "fan_in", "truncated_normal")
