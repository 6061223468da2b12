"""Normalization of features by statistics of the data, taken once before training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from fanin import config
from fanin.dtypes import widest_float
from fanin.errors import DataError
from fanin.layers.axes import checked_axes, from_front, known_sizes, smallest_shape
from fanin.layers.base.convert import as_given, as_tensor, wide_dtype
from fanin.layers.base.input_spec import InputSpec, check_inputs
from fanin.layers.base.layer import Layer, family, pure

_CHUNK = 1 << 22  # numbers looked at together


@family.entry()
class Normalization(Layer):
    """outputs = (inputs - mean) / max(sqrt(variance), 1e-7), each feature with its own mean and variance.

    They are given, or learned from data by `adapt`; before that the mean is 0 and the variance 1. With `invert`, the
    other way round: outputs = mean + inputs * max(sqrt(variance), 1e-7).

    Shapes: inputs (B, ..., C) -> the same; mean and variance (C,), for several axes the sizes of these.

    Args:
        axis: the axis of the features, default the last; several; None for one mean and variance of all numbers.
        mean: a number or an array that broadcasts to the sizes of `axis`; given together with `variance`.
        variance: likewise, not negative.
        invert: whether to go from normalized numbers back to the original ones.
        **kwargs: name, dtype and the other arguments of a layer.

    Weights, if mean and variance are not given: `mean`, `variance` and `count`, which do not train (buffers). `count`
    is always 0: it is there for the files of Keras, which has it for its own older ones.

    Arithmetic is float32 at least, also under mixed_bfloat16. Raises ValueError for a mean without a variance or of
    another shape, for axes that the input lacks, and for a size on `axis` that is unknown or not that of `mean`. After
    Keras's `Normalization`.

    >>> layer = Normalization()
    >>> layer.adapt(torch.tensor([[0.0, 7.0], [2.0, 9.0]]))
    >>> layer.mean.tolist(), layer.variance.tolist()
    ([1.0, 8.0], [1.0, 1.0])
    >>> layer(torch.tensor([[0.0, 7.0]])).tolist()
    [[-1.0, -1.0]]
    """

    casts_integers = True
    supports_masking = True

    def __init__(self, axis: Any = -1, mean: Any = None, variance: Any = None, invert: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = () if axis is None else tuple(checked_axes(axis, "Normalization: axis"))
        self.invert = bool(invert)
        if (mean is None) != (variance is None):
            raise ValueError(
                f"Normalization: mean and variance go together, found mean={mean!r} and variance={variance!r}."
            )
        self.input_mean, self.input_variance = _numbers(mean, "mean"), _numbers(variance, "variance")
        if mean is not None:
            self._check_given()

    def _check_given(self) -> None:
        mean, variance = as_tensor(self.input_mean), as_tensor(self.input_variance)
        if mean.shape != variance.shape or mean.ndim > len(self.axis):
            raise ValueError(
                f"Normalization: mean and variance must have the same shape, of at most {len(self.axis)} axes for "
                f"axis={self.axis}, found {tuple(mean.shape)} and {tuple(variance.shape)}."
            )
        if not bool((variance >= 0).all()):
            raise ValueError(f"Normalization: variance must not be negative, found {self.input_variance!r}.")

    def _convert(self, leaf: Any) -> Any:
        return as_given(leaf, self)  # a cast to 16 bits would come before the mean is taken off

    def build(self, input_shape: Any) -> None:
        """Make mean and variance for inputs with known sizes on `axis`."""
        who = f"Layer {self.name!r}"
        sizes = known_sizes(input_shape, from_front(self.axis, len(input_shape), who), who)
        if self.input_mean is None:
            self.add_weight("mean", sizes, initializer="zeros", trainable=False)
            self.add_weight("variance", sizes, initializer="ones", trainable=False)
            self.add_weight("count", (), "int32", initializer="zeros", trainable=False)
        else:
            for name, given in (("mean", self.input_mean), ("variance", self.input_variance)):
                self.register_buffer(name, self._spread(given, sizes), persistent=False)
        self.input_spec = self._spec_for(input_shape)

    def _spec_for(self, shape: Any) -> InputSpec:
        """What inputs must be like that can be taken together with one of this shape."""
        mixed = len({axis < 0 for axis in self.axis}) > 1  # only for one rank are they the same axes
        return InputSpec(ndim=len(shape) if mixed else None, axes={axis: shape[axis] for axis in self.axis})

    def _spread(self, given: Any, sizes: tuple[int, ...]) -> torch.Tensor:
        tensor = as_tensor(given).to(device=self._home, dtype=self.dtype_policy.variable)
        try:
            return tensor.expand(sizes).clone()
        except RuntimeError:
            raise ValueError(
                f"Layer {self.name!r}: mean and variance of shape {tuple(tensor.shape)} do not broadcast to the "
                f"sizes {sizes} of axis={self.axis}."
            ) from None

    @torch.no_grad()
    def adapt(self, data: Any) -> None:
        """Set mean and variance to those of `data`, in place of any before.

        Args:
            data: an array or a tensor; a DataLoader or another iterable of batches, of which a tuple or list counts
                with its first part. It is read once, batch by batch, and added up in float64.

        Raises ValueError if mean and variance were given, if there are no rows, or if the shape does not fit;
        `DataError` for NaN or Inf in the data; TypeError for anything else. Nothing changes then.
        """
        if self.input_mean is not None:
            raise ValueError(f"Layer {self.name!r} has its mean and variance from its arguments: it cannot adapt.")
        spec, shape = self.input_spec, None
        count, mean, squares = 0, torch.zeros((), device="cpu"), torch.zeros((), device="cpu")
        for batch in self._batches(data):
            axes = from_front(self.axis, batch.ndim, f"Layer {self.name!r}")
            if not self.built and shape is None:
                shape = tuple(size if axis in axes else None for axis, size in enumerate(batch.shape))
                spec = self._spec_for(shape)
            check_inputs(f"layer {self.name!r}", spec, [batch])
            others = [axis for axis in range(batch.ndim) if axis not in axes]
            values = batch.to(widest_float(batch.device))
            batch_mean = values.mean(others) if others else values
            batch_squares = (values - _broadcast(batch_mean, axes, batch.ndim)).square()
            batch_squares = batch_squares.sum(others) if others else batch_squares
            added = batch.numel() // max(batch_mean.numel(), 1)
            if added:  # two parts of the data into one: the parallel form of Chan et al. 1979
                gap = batch_mean - mean
                count += added
                mean = mean + gap * (added / count)
                squares = squares + batch_squares + gap.square() * (added * (count - added) / count)
        if not count:
            raise ValueError(f"Layer {self.name!r}: the data to adapt to is empty.")
        if not bool(torch.isfinite(squares).all()):
            raise DataError(f"Layer {self.name!r}: the data to adapt to holds NaN or Inf. Clean the data first.")
        if not self.built:
            self.build(shape)
        self.mean.copy_(mean)
        self.variance.copy_(squares / count)

    def _batches(self, data: Any) -> Iterator[torch.Tensor]:
        """The tensors of `data`; an array in parts, unless its rows are features of their own."""
        who = f"layer {self.name!r}, adapt"
        if isinstance(data, torch.Tensor) or hasattr(data, "__array__"):
            tensor = as_tensor(data, who)
            if tensor.ndim and 0 not in from_front(self.axis, tensor.ndim, f"Layer {self.name!r}"):
                yield from torch.split(tensor, max(1, _CHUNK // max(1, tensor[:1].numel())))
            else:
                yield tensor
            return
        if not isinstance(data, Iterable) or isinstance(data, (str, bytes, dict)):
            raise TypeError(f"Layer {self.name!r}: adapt takes an array or batches of them, found {data!r}.")
        for item in data:
            batch = item[0] if isinstance(item, (tuple, list)) and item else item
            if not hasattr(batch, "shape"):
                raise TypeError(f"Layer {self.name!r}: adapt takes batches that are arrays, found {batch!r}.")
            yield as_tensor(batch, who)

    @pure
    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """The inputs, normalized (or back again)."""
        x = inputs.to(wide_dtype(inputs.dtype, self.dtype_policy.compute))
        axes = from_front(self.axis, x.ndim, f"Layer {self.name!r}")
        mean, variance = (_broadcast(known.to(x.dtype), axes, x.ndim) for known in (self.mean, self.variance))
        spread = variance.sqrt().clamp(min=config.epsilon())
        x = mean + x * spread if self.invert else (x - mean) / spread
        return x.to(self.dtype_policy.compute)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them. What `adapt` learned is in the weights."""
        own = {
            "axis": list(self.axis),
            "invert": self.invert,
            "mean": self.input_mean,
            "variance": self.input_variance,
        }
        return {**super().get_config(), **own}

    def _shape_from_state(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        return smallest_shape(self.axis, shapes["mean"]) if "mean" in shapes else None


def _numbers(value: Any, name: str) -> Any:
    """A number or nested lists of them, from anything that holds numbers; None stays."""
    return None if value is None else as_tensor(value, f"Normalization: {name}").tolist()


def _broadcast(known: torch.Tensor, axes: tuple[int, ...], rank: int) -> torch.Tensor:
    """The sizes of `known` on `axes` of a tensor of that rank, 1 on all others."""
    shape = [1] * rank
    for axis, size in zip(axes, known.shape, strict=True):
        shape[axis] = size
    return known.view(shape)
