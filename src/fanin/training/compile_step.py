"""The compiled training step of any module, for the user's own loops."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from fanin import losses, optimizers
from fanin.layers.base.convert import tensors_on
from fanin.layers.base.devices import device_of
from fanin.layers.base.ledger import run_updates
from fanin.training.compiling import AnyProgram
from fanin.training.data import Batch
from fanin.training.denormals import flush_denormals
from fanin.training.eager import train_eagerly
from fanin.training.engine import Engine
from fanin.training.locks import lock_of
from fanin.training.step import Step
from fanin.training.sums import Sums
from fanin.training.updaters import updater_for


class CompiledStep:
    """One training step of a module, compiled for each kind of batch. Made by `compile_step`."""

    def __init__(self, module: nn.Module, loss: Any, optimizer: Any):
        if isinstance(optimizer, type) and issubclass(optimizer, torch.optim.Optimizer):
            name = optimizer.__name__
            raise TypeError(
                f"compile_step: optimizer must be an optimizer, such as torch.optim.{name}(module.parameters()), found "
                f"the class {name}."
            )
        self.module, self.loss = module, loss
        self.optimizer = optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizers.get(optimizer)
        owner = loss.__self__ if isinstance(loss, MethodType) else loss
        whole = _WithLoss(module, owner) if isinstance(owner, nn.Module) and owner is not module else module
        self._lock = lock_of(whole)  # one step at a time
        extra_objects = [] if owner is None else [loss, owner]
        self.step = Step(whole, _loss_function(loss), lambda sums, y, outputs, weight: [], extra_objects)
        self.engine = Engine(self.step, updater_for(self.optimizer), Sums([], []), wants_loss=True)

    def __reduce__(self) -> Any:
        return CompiledStep, (self.module, self.loss, self.optimizer)  # copies compile their own programs

    @property
    def programs(self) -> list[AnyProgram]:
        """The programs made so far, one for each kind of batch; `print()` shows one, `stats()` what it costs."""
        return self.engine.programs

    def __call__(self, x: Any, y: Any = None, sample_weight: Any = None) -> Tensor:
        """Train on one batch; the loss before the update, a new 0-dim tensor.

        Args:
            x: the input, or a structure of inputs, (B, ...).
            y: the targets, likewise; None for a loss that needs none.
            sample_weight: (B,), for losses that take it.

        The step runs in train mode: parts that were put into eval mode by themselves stay so.
        """
        x, y, sample_weight = self._tensors(x), self._tensors(y), self._tensors(sample_weight)
        batch = Batch(x, y, sample_weight, _rows(x))
        with self._lock:
            module = self.module
            was_training = module.training or any(part.training for part in module.modules())
            if not was_training:
                module.train()
            try:
                with flush_denormals():
                    return self._run(batch)
            finally:
                if not was_training:
                    module.eval()

    def _tensors(self, part: Any) -> Any:
        """A part of a batch, with its arrays as tensors on the module's device."""
        if part is None or isinstance(part, Tensor):
            return part
        return tensors_on(part, device_of(self.module), "compile_step")

    def _run(self, batch: Batch) -> Tensor:
        self.engine.revalidate()
        if not self.engine.is_ready and any(is_lazy(parameter) for parameter in self.module.parameters()):
            with torch.no_grad():
                self.module(batch.x)  # makes the weights
            self.engine.revalidate()
        outcome = self.engine.train(batch)
        if outcome is not None and outcome.loss is not None:
            return outcome.loss
        state = self.step.live_state([])
        with self.engine.lock:
            result = train_eagerly(self.step, state, self.optimizer, batch)
        run_updates(result.updates)
        self.engine.warn()
        return result.loss


class _WithLoss(nn.Module):
    """A module together with a loss that is a module too, and may have weights and options."""

    def __init__(self, module: nn.Module, loss: nn.Module):
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, x: Any) -> Any:
        """The outputs of the module."""
        return self.module(x)


def compile_step(module: nn.Module, loss: Any, optimizer: Any) -> CompiledStep:
    """Compile a whole training step: forward, loss, penalties, backward, the optimizer's update, constraints.

    Args:
        module: any module, fanin's or not.
        loss: a function (outputs, targets) -> scalar as in torch, a torch.nn loss, one of fanin's losses or its name;
            None for a module whose outputs are the loss.
        optimizer: one of fanin's or its name, or torch.optim's. With others of torch's than SGD, Adam and AdamW the
            step runs eagerly.

    Returns `step(x, y) -> loss`. Weights stay ordinary Parameters: between steps they can be called, saved, frozen or
    changed, and the next step sees it. What cannot be traced runs eagerly, warns once, and computes the same.

    >>> module = torch.nn.Linear(2, 1)
    >>> step = compile_step(module, torch.nn.functional.mse_loss, torch.optim.SGD(module.parameters(), lr=0.1))
    >>> first, second = (step(torch.ones(4, 2), torch.zeros(4, 1)).item() for _ in range(2))
    >>> second < first or first == 0
    True
    >>> step.programs[0].stats()[-1][1].operations  # what is left of the traced ones
    6
    """
    return CompiledStep(module, loss, optimizer)


def _loss_function(loss: Any) -> Callable[[Any, Any, Any], tuple[Tensor, list[Tensor]]]:
    """(y, outputs, weight) -> (scalar, []), from a loss as `compile_step` takes it."""
    if loss is None:
        return lambda y, outputs, weight: (outputs, [])
    if isinstance(loss, (str, dict, losses.Loss)) or (isinstance(loss, type) and issubclass(loss, losses.Loss)):

        def own(y: Any, outputs: Any, weight: Any) -> tuple[Tensor, list[Tensor]]:
            resolved = losses.resolve(loss, (None, *outputs.shape[1:]), tuple(y.shape))
            return resolved(y, outputs, weight), []

        losses.get(loss)  # an unknown name fails now
        return own
    if not callable(loss):
        raise TypeError(f"compile_step: loss must be a name, a Loss or a function (outputs, targets), found {loss!r}.")
    return lambda y, outputs, weight: (loss(outputs, y) if weight is None else loss(outputs, y, weight), [])


def _rows(x: Any) -> int:
    first = x if isinstance(x, Tensor) else pytree.tree_leaves(x)[0]
    return int(first.shape[0]) if first.dim() else 1
