"""Optimizers: Keras's formulas, arguments and files, in pure torch operations that a compiled step can hold."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from fanin.missing_names import explain
from fanin.optimizers import schedules
from fanin.optimizers.adadelta import Adadelta
from fanin.optimizers.adagrad import Adagrad
from fanin.optimizers.adam import Adam, AdamW
from fanin.optimizers.adamax import Adamax
from fanin.optimizers.base import Optimizer
from fanin.optimizers.lion import Lion
from fanin.optimizers.loss_scale import LossScaleOptimizer
from fanin.optimizers.nadam import Nadam
from fanin.optimizers.rmsprop import RMSprop
from fanin.optimizers.sgd import SGD
from fanin.registry import Family, get_registered_object

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "LossScaleOptimizer",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "deserialize",
    "family",
    "get",
    "is_torch",
    "schedules",
    "serialize",
]

if not TYPE_CHECKING:  # which would then take every name for known
    __getattr__ = explain(__name__)

family: Family[Optimizer] = Family("optimizer", "keras.optimizers", Optimizer)
for _class in (SGD, RMSprop, Adam, AdamW, Nadam, Adamax, Adagrad, Adadelta, Lion, LossScaleOptimizer):
    family.add(_class, _class.__name__.lower())


def is_torch(identifier: Any) -> bool:
    """Whether this is an optimizer of `torch.optim`: an instance, a class, or a `functools.partial` of a class.

    >>> is_torch(functools.partial(torch.optim.SGD, lr=0.1)), is_torch("sgd")
    (True, False)
    """
    if isinstance(identifier, functools.partial):
        identifier = identifier.func
    if inspect.isclass(identifier):
        return issubclass(identifier, torch.optim.Optimizer)
    return isinstance(identifier, torch.optim.Optimizer)


def get(identifier: Any) -> Any:
    """The optimizer that `identifier` means.

    Args:
        identifier: None; a name in any case ("adam", "RMSprop"); an `Optimizer` class or instance; a config; or
            something of `torch.optim` (`is_torch`), which is given back as it is.

    Raises ValueError for an unknown name, TypeError for what cannot be an optimizer.

    >>> get("AdamW").learning_rate
    0.0010000000474974513
    """
    if is_torch(identifier):
        return identifier
    if isinstance(identifier, str) and get_registered_object(identifier) is None:
        identifier = identifier.lower()
    found = deserialize(identifier) if isinstance(identifier, Mapping) else family.get(identifier)
    return _check(found, identifier)


def serialize(optimizer: Any) -> Any:
    """Plain JSON data for an optimizer, in Keras's object form; always under the module "keras.optimizers"."""
    return family.serialize(optimizer)


def deserialize(config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Optimizer:
    """The optimizer that `serialize`, here or in Keras, described; its state is not part of it.

    Class names may be in any case. Raises `MismatchError` for an unknown class.
    """
    name = config.get("class_name")
    if isinstance(name, str) and name.lower() in family.names():
        config = {**config, "class_name": family.lookup(name.lower()).__name__}
    found: Optimizer = _check(family.deserialize(config, custom_objects), config)
    return found


def _check(found: Any, identifier: Any) -> Any:
    if found is None or isinstance(found, Optimizer):
        return found
    raise TypeError(
        f"Could not interpret optimizer identifier {identifier!r}: expected a name, class, config or instance."
    )
