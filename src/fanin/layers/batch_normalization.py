"""Normalization by the statistics of the batch."""

from __future__ import annotations

from typing import Any

import torch

from fanin import arguments, initializers
from fanin.layers.affine import Affine
from fanin.layers.axes import checked_axes, from_front, known_sizes, smallest_shape
from fanin.layers.base.input_spec import InputSpec
from fanin.layers.base.layer import family
from fanin.layers.base.scope import current


@family.entry()
class BatchNormalization(Affine):
    """outputs = (inputs - mean) / sqrt(variance + epsilon) * gamma + beta, for each index of `axis` on its own.

    In training, mean and variance are those of the batch, and the moving ones follow them:
    moving = moving * momentum + batch * (1 - momentum). Else they are the moving ones. The variance is the mean square
    (no n - 1), where PyTorch's moving variance is the unbiased one. A frozen layer (`trainable = False`) always uses
    the moving statistics and leaves them alone.

    Shapes: inputs (B, ..., C, ...) of rank 2 or more, C on `axis` -> the same; gamma, beta, moving_mean and
    moving_variance (C,).

    Args:
        axis: the axis of C, default the last.
        momentum: from 0 to 1, how much of the moving statistics stays; PyTorch's counts the other way round.
        epsilon: added to the variance.
        center: whether there is a beta.
        scale: whether there is a gamma.
        beta_initializer: default zeros.
        gamma_initializer: default ones.
        moving_mean_initializer: default zeros.
        moving_variance_initializer: default ones.
        beta_regularizer: penalty on beta, one entry in `losses`; likewise `gamma_regularizer`.
        gamma_regularizer: penalty on gamma.
        beta_constraint: applied to beta after each update; likewise `gamma_constraint`.
        gamma_constraint: applied to gamma.
        renorm: only False; likewise `synchronized`. True is a ValueError.
        renorm_clipping: without meaning, as renorm is False; likewise `renorm_momentum`.
        renorm_momentum: without meaning.
        synchronized: only False.
        **kwargs: name, dtype, weights and the other arguments of a layer.

    A call takes `training`; without it the enclosing call's counts, then the mode of the module. It takes `mask`, of
    the inputs' shape without the last axis: what is False does not count in mean and variance. A batch in which
    nothing counts changes nothing. Statistics and arithmetic are float32 at least, also under mixed_bfloat16.

    The moving statistics are buffers that a training call changes in place. They are the layer's `updates`.

    Raises ValueError for an axis that the input lacks, a C that is unknown, and a mask of another rank. After Keras's
    `BatchNormalization`; source: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167

    >>> layer = BatchNormalization(momentum=0.5)
    >>> x = torch.tensor([[1.0], [3.0]])
    >>> [round(y, 3) for y in layer(x, training=True).flatten().tolist()]
    [-1.0, 1.0]
    >>> layer.moving_mean.tolist(), layer.moving_variance.tolist()
    ([1.0], [1.0])
    """

    def __init__(
        self,
        axis: Any = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Any = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            epsilon=epsilon,
            center=center,
            scale=scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
            **kwargs,
        )
        for name, asked in (("renorm", renorm), ("synchronized", synchronized)):
            if asked:
                raise ValueError(f"BatchNormalization: {name}={asked!r} is not supported; only False is.")
        axes = checked_axes(axis, "BatchNormalization: axis")  # Keras 2 wrote a list of one
        if len(axes) != 1:
            raise ValueError(f"BatchNormalization: axis must be one integer, found {axis!r}.")
        self.axis = axes[0]
        self.momentum = arguments.number("BatchNormalization: momentum", momentum, 0, 1, ends="[]")
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.input_spec = InputSpec(min_ndim=2)

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs with a known size C on `axis`."""
        who = f"Layer {self.name!r}"
        size = known_sizes(input_shape, from_front([self.axis], len(input_shape), who), who)
        self._make_affine(size)
        self.add_weight("moving_mean", size, initializer=self.moving_mean_initializer, trainable=False)
        self.add_weight("moving_variance", size, initializer=self.moving_variance_initializer, trainable=False)
        self.input_spec = InputSpec(min_ndim=2, axes={self.axis: size[0]})
        self._use_initial_weights()

    def call(self, inputs: torch.Tensor, training: bool | None = None, mask: Any = None) -> torch.Tensor:
        """The inputs, normalized."""
        x: torch.Tensor = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        counted = None if mask is None else self._counted(mask, x)
        shape = [1] * x.ndim
        shape[self.axis] = -1
        mean, variance = (moving.to(x.dtype).view(shape) for moving in (self.moving_mean, self.moving_variance))
        scope = current.scope
        if scope is not None and scope.layer is self and not (scope.trial and scope.training is False):
            # Noted while frozen too, so that thawing shows them again; and without the inputs: the record would keep
            # the batch and its graph alive until the next call.
            self._note(scope.record.updates, [self.moving_mean, self.moving_variance], [])
        if training and self.trainable and x.numel():
            others = [axis for axis in range(x.ndim) if axis != self.axis % x.ndim]
            mean, variance = _moments(x, others) if counted is None else _masked(x, others, counted, mean, variance)
            self._follow(mean, variance)
        gamma, beta = self._affine(x.dtype)
        factor = torch.rsqrt(variance + self.epsilon)
        x = (x - mean) * (factor if gamma is None else factor * gamma.view(shape))
        x = x if beta is None else x + beta.view(shape)
        return x.to(inputs.dtype)

    def _counted(self, mask: Any, x: torch.Tensor) -> torch.Tensor:
        """The mask as booleans of the shape of x."""
        found = torch.as_tensor(mask, device=x.device)
        if found.ndim != x.ndim - 1:
            raise ValueError(
                f"Layer {self.name!r}: the mask must have one axis less than the inputs, found mask of shape "
                f"{tuple(found.shape)} and inputs of shape {tuple(x.shape)}."
            )
        return found.bool().unsqueeze(-1).expand_as(x)

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.copy_(moving.to(batch.dtype).lerp(batch.view(-1), 1 - self.momentum))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        from_front([self.axis], len(input_shape), f"Layer {self.name!r}")
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them; those of `renorm` are left out, so that older versions read it."""
        own = {
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            **self._described(
                "beta_initializer",
                "gamma_initializer",
                "moving_mean_initializer",
                "moving_variance_initializer",
                "beta_regularizer",
                "gamma_regularizer",
                "beta_constraint",
                "gamma_constraint",
            ),
            "synchronized": False,
        }
        return {**super().get_config(), **own}

    def _shape_from_state(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        return smallest_shape([self.axis], shapes["moving_mean"]) if "moving_mean" in shapes else None


def _moments(x: torch.Tensor, axes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance over `axes`, which stay as axes of size 1."""
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return mean, variance


def _masked(
    x: torch.Tensor, axes: list[int], counted: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_moments`, of what is counted; where nothing is, the moving mean and variance that are given."""
    count = counted.sum(axes, keepdim=True)
    number = count.clamp(min=1)
    batch_mean = torch.where(counted, x, 0).sum(axes, keepdim=True) / number
    batch_variance = torch.where(counted, x - batch_mean, 0).square().sum(axes, keepdim=True) / number
    return torch.where(count > 0, batch_mean, mean), torch.where(count > 0, batch_variance, variance)
