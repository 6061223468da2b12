"""Loss scaling: gradients in float16 neither vanish nor overflow, because the loss is multiplied before them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fanin import arguments, registry
from fanin.optimizers.base import Optimizer
from fanin.optimizers.core import Slots
from fanin.optimizers.rounds import Round
from fanin.optimizers.state import Spec

_LARGEST = 3.4e38  # what a float32 holds
_NOT_OURS = {
    "dynamic": True, "weight_decay": None, "clipnorm": None, "global_clipnorm": None, "clipvalue": None,
    "use_ema": False, "ema_momentum": 0.99, "ema_overwrite_frequency": None, "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}  # fmt: skip


class LossScaleOptimizer(Optimizer):
    """Wraps an optimizer for training in float16: gradients of scale * loss, divided by scale before the update.

    Args:
        inner_optimizer: the optimizer that makes the updates. Its own `loss_scale_factor` is set to None.
        initial_scale: the first scale, above 0.
        dynamic_growth_steps: after so many steps with finite gradients since it last changed, the scale doubles.
        name: by default "loss_scale_optimizer", made unique.

    A step with a gradient that is not finite changes no weight and no slot, is not counted in `iterations`, and halves
    the scale. `compile` wraps the optimizer of a model in mixed_float16 by itself, unless `auto_scale_loss=False`. In a
    loop of one's own: gradients of `optimizer.scale_loss(loss)`, then `optimizer.apply(gradients, weights)`.

    Attributes:
        dynamic_scale: the scale of the next step.
        step_counter: how many steps had finite gradients since the scale last changed.

    Learning rate, iterations, averages and choices for single weights are the inner optimizer's. Raises ValueError for
    other arguments, which belong to the inner optimizer, and TypeError for one that is not fanin's. After Keras's
    `LossScaleOptimizer`, as its eager backends compute it.

    >>> from fanin.optimizers import SGD
    >>> optimizer, weight = LossScaleOptimizer(SGD(0.5), initial_scale=8.0), torch.nn.Parameter(torch.ones(()))
    >>> loss = weight * 2.0
    >>> optimizer.apply(torch.autograd.grad(optimizer.scale_loss(loss), [weight]), [weight])
    >>> weight.item(), optimizer.dynamic_scale
    (0.0, 8.0)
    >>> optimizer.apply([torch.tensor(float("inf"))], [weight])
    >>> weight.item(), optimizer.dynamic_scale
    (0.0, 4.0)
    """

    def __init__(
        self,
        inner_optimizer: Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        **kwargs: Any,
    ):
        if not isinstance(inner_optimizer, Optimizer) or isinstance(inner_optimizer, LossScaleOptimizer):
            raise TypeError(
                f"LossScaleOptimizer wraps one of fanin's optimizers that scales no loss, found {inner_optimizer!r}."
            )
        if kwargs:
            raise ValueError(
                f"LossScaleOptimizer does not know the argument {', '.join(map(repr, kwargs))}; give it to the inner "
                "optimizer."
            )
        self.initial_scale = arguments.number("initial_scale", initial_scale, 0.0, _LARGEST, ends="(]")
        self.dynamic_growth_steps = arguments.whole("dynamic_growth_steps", dynamic_growth_steps, 1)
        self.inner_optimizer = inner_optimizer
        super().__init__(inner_optimizer._rate, name=name)
        inner_optimizer.loss_scale_factor = None
        self.is_plain = inner_optimizer.is_plain
        self.step_counter = 0
        self._scale = self.initial_scale
        self._tensors: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def dynamic_scale(self) -> float:
        """What the loss of the next step is multiplied by."""
        return self._scale

    @dynamic_scale.setter
    def dynamic_scale(self, value: Any) -> None:
        self._scale = arguments.number("dynamic_scale", value, 0.0, _LARGEST, ends="(]")
        for scale, _ in self._tensors.values():
            scale.fill_(self._scale)

    # --- one call --------------------------------------------------------------------------------------------

    def numbers_for(self, of: Round, weight: Tensor) -> tuple[Tensor | None, ...]:
        """The inner optimizer's, then the scale, and a place for whether all gradients were finite."""
        if weight.device not in self._tensors:
            with torch.inference_mode(False):
                scale = torch.tensor(self._scale, dtype=torch.float32, device=weight.device)
                self._tensors[weight.device] = scale, torch.ones((), dtype=torch.bool, device=weight.device)
        return *self.inner_optimizer.numbers_for(of, weight), *self._tensors[weight.device]

    def with_scale(self, loss: Tensor, numbers: Sequence[Tensor | None]) -> Tensor:
        """The loss times the scale among `numbers`."""
        scale = numbers[-2]
        assert scale is not None
        return loss * scale

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss times the scale."""
        return loss * self._scale

    def play(
        self,
        of: Round,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        slots: Sequence[Slots],
        *numbers: Tensor | None,
    ) -> None:
        """As the inner optimizer does, on gradients divided by the scale; nothing if one of them is not finite."""
        *inner, scale, is_finite = numbers
        assert scale is not None
        assert is_finite is not None
        given = [g for g in gradients if g is not None]
        is_finite.copy_(torch.stack([g.isfinite().all().to(is_finite.device) for g in given]).all())
        targets = [*weights, *(value for one in slots for value in one.values())]
        before = [target.clone() for target in targets]
        unscaled = [None if g is None else g / scale.to(g.device) for g in gradients]
        self.inner_optimizer.play(of, weights, unscaled, slots, *inner)
        for target, value in zip(targets, before, strict=True):
            target.copy_(torch.where(is_finite.to(target.device), target, value))

    def count_round(self, of: Round, weights: Sequence[Tensor], has_gradient: Sequence[bool]) -> None:
        """Count a call with finite gradients; grow or shrink the scale."""
        if self._tensors[weights[0].device][1]:
            self.inner_optimizer.count_round(of, weights, has_gradient)
            self.step_counter += 1
            if self.step_counter < self.dynamic_growth_steps:
                return
            self.dynamic_scale = min(self._scale * 2.0, _LARGEST)
        else:
            self.dynamic_scale = max(self._scale * 0.5, 1e-30)
        self.step_counter = 0

    # --- what is the inner optimizer's -----------------------------------------------------------------------

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's learning rate."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.inner_optimizer.learning_rate = value

    @property
    def has_schedule(self) -> bool:
        """Whether the inner optimizer's learning rate comes from a schedule."""
        return self.inner_optimizer.has_schedule

    @property
    def iterations(self) -> int:
        """How many updates the inner optimizer made."""
        return self.inner_optimizer.iterations

    @iterations.setter
    def iterations(self, value: Any) -> None:
        self.inner_optimizer.iterations = value

    @property
    def built(self) -> bool:
        """Whether the inner optimizer is built."""
        return self.inner_optimizer.built

    def remember(self, weights: Sequence[Tensor]) -> None:
        """Let the inner optimizer remember the weights it was built for."""
        self.inner_optimizer.remember(weights)

    def slots(self, weights: Sequence[Tensor]) -> list[Slots]:
        """The slots of each weight."""
        return self.inner_optimizer.slots(weights)

    @property
    def core(self) -> Optimizer:
        """The inner optimizer."""
        return self.inner_optimizer

    def next_round(self, weights: Sequence[Tensor]) -> Round:
        """What the next call will do, if its gradients are finite."""
        return self.inner_optimizer.next_round(weights)

    def known_weights(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """These weights, and others that take part in every call."""
        return self.inner_optimizer.known_weights(weights)

    def exclude_from_weight_decay(
        self,
        var_list: Iterable[Tensor] | None = None,
        var_names: Iterable[str] | None = None,
        module: torch.nn.Module | None = None,
    ) -> None:
        """As the inner optimizer's."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names, module)

    def scale_learning_rate(self, weights: Iterable[Tensor], factor: float) -> None:
        """As the inner optimizer's."""
        self.inner_optimizer.scale_learning_rate(weights, factor)

    def finalize_variable_values(self, var_list: Iterable[Tensor]) -> None:
        """As the inner optimizer's."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def _known(self, weights: Iterable[Tensor] | None) -> list[Tensor]:
        return self.inner_optimizer._known(weights)

    # --- state and config ------------------------------------------------------------------------------------

    def state_tensors(self, weights: Iterable[Tensor] | None = None) -> list[Tensor]:
        """The state in the order of Keras's files: an iteration and a learning rate that mean nothing; once there are
        weights, the counter and the scale; then the inner optimizer's."""
        found = self._known(weights)
        own: list[tuple[float, torch.dtype]] = [(0, torch.int32), (0.0, torch.float32)]
        own += [(self.step_counter, torch.int32), (self._scale, torch.float32)] if found else []
        return [torch.tensor(one, dtype=kind, device="cpu") for one, kind in own] + self.inner_optimizer.state_tensors(
            found
        )

    def specs(self, weights: Sequence[Tensor]) -> list[Spec]:
        """What a file must hold for `state_tensors(weights)`."""
        own: list[Spec] = [((), torch.int64, False), ((), torch.float64, False)]
        return own * (2 if weights else 1) + self.inner_optimizer.specs(weights)

    def check_head(self, values: Sequence[Any]) -> None:
        """ValueError or TypeError unless the numbers at the head of a state are such as an optimizer can have."""
        is_built = len(values) > len(self.specs([]))
        if is_built:
            arguments.number("step_counter", values[2])
            arguments.number("dynamic_scale", values[3], 0.0, _LARGEST, ends="(]")
        self.inner_optimizer.check_head(values[4 if is_built else 2 :])

    def set_state(self, weights: Iterable[Tensor] | None, arrays: Sequence[Any]) -> None:
        """Take over what `get_state` gave, as `Optimizer.set_state`."""
        found = self._known(weights)
        expected, own = len(self.state_tensors(found)), 4 if found else 2
        if len(arrays) != expected:
            raise ValueError(f"{self.name} has {expected} variables, found {len(arrays)} arrays.")
        if found:
            arguments.number("step_counter", arrays[2])
            arguments.number("dynamic_scale", arrays[3], 0.0, _LARGEST, ends="(]")
        self.inner_optimizer.set_state(found, arrays[own:])
        if found:
            self.step_counter, self.dynamic_scale = int(arrays[2]), float(arrays[3])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {
            "name": self.name,
            "inner_optimizer": registry.serialize(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> LossScaleOptimizer:
        """The optimizer that `get_config` described. Older files have the base class's options, at their defaults."""
        inner = registry.deserialize(config["inner_optimizer"], custom_objects)
        unset = {name for name in _NOT_OURS if name in config and config[name] == _NOT_OURS[name]}
        return cls(inner, **{k: v for k, v in config.items() if k != "inner_optimizer" and k not in unset})
