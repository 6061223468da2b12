"""Constraints: what a weight is projected to after each update. For layers, and for any `torch.nn.Module`.

In a plain PyTorch loop, as for the weight clipping of a Wasserstein GAN::

    constraints.constrain(critic, {"*": lambda w: w.clamp(-0.01, 0.01)})
    ...
    optimizer.step()
    constraints.apply(critic)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fanin import arguments
from fanin.config import epsilon
from fanin.dtypes import dtype_name
from fanin.registry import Family
from fanin.weights import CONSTRAINTS, each_fact, set_facts

__all__ = [
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "apply",
    "constrain",
    "deserialize",
    "get",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "serialize",
    "unit_norm",
]

C = TypeVar("C", bound="Constraint")
Axis = int | Sequence[int] | None


class Constraint:
    """The base class: override `__call__(w) -> w'`, of the same shape and dtype, and `get_config` if it has arguments.

    A plain function from a tensor to a tensor serves as well.

    >>> class Round(Constraint):
    ...     def __call__(self, w):
    ...         return w.round()
    >>> Round()(torch.tensor([0.7, -1.2])).tolist()
    [1.0, -1.0]
    """

    def __call__(self, w: Tensor) -> Tensor:
        """The projection of `w`; `w` itself in the base class."""
        return w

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain JSON data; none in the base class."""
        return {}

    @classmethod
    def from_config(cls: type[C], config: Mapping[str, Any]) -> C:
        """The constraint that `get_config` described."""
        return cls(**config)


family: Family[Callable[[Tensor], Tensor]] = Family("constraint", "keras.constraints", Constraint)
family.add(Constraint)


def _axis(value: Any) -> int | list[int] | None:
    """One axis as an int, several as a list of ints, or None."""
    if value is None or arguments.is_whole(value):
        return None if value is None else int(value)
    if isinstance(value, (list, tuple)) and value and all(map(arguments.is_whole, value)):
        return [int(axis) for axis in value]
    raise ValueError(f"axis must be an int, a list of ints, or None for all axes, found {value!r}.")


def _norms(w: Tensor, axis: int | list[int] | None) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(w, dim=axis, keepdim=True)
    return norms


@family.entry()
class MaxNorm(Constraint):
    """w * min(n, max_value) / (epsilon() + n), with n the Euclidean norm of w along `axis`: no longer than max_value.

    Args:
        max_value: default 2.
        axis: the axes that make up one vector, default 0: in a Dense kernel (input_dim, units), what enters one unit.
            None takes the whole tensor as one vector.

    ValueError for a negative or infinite max_value, or an axis that is no int or list of ints.
    Source: Srebro et al. 2005; Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html

    >>> [round(v, 4) for v in MaxNorm(1.0)(torch.tensor([3.0, 4.0])).tolist()]
    [0.6, 0.8]
    """

    def __init__(self, max_value: float = 2, axis: Axis = 0):
        self.max_value = arguments.plain("max_value", max_value)
        self.axis = _axis(axis)

    def __call__(self, w: Tensor) -> Tensor:
        """The projection of `w`, same shape and dtype."""
        norms = _norms(w, self.axis)
        return w * (norms.clamp(max=self.max_value) / (epsilon() + norms))

    def get_config(self) -> dict[str, Any]:
        """{"max_value": ..., "axis": ...}."""
        return {"max_value": self.max_value, "axis": self.axis}


@family.entry()
class NonNeg(Constraint):
    """max(w, 0).

    >>> NonNeg()(torch.tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    def __call__(self, w: Tensor) -> Tensor:
        """The projection of `w`, same shape and dtype."""
        return w.clamp(min=0)


@family.entry()
class UnitNorm(Constraint):
    """w / (epsilon() + n), with n the Euclidean norm of w along `axis`: of length 1, or 0 where w is 0.

    Args:
        axis: the axes that make up one vector, default 0: in a Dense kernel (input_dim, units), what enters one unit.
            None takes the whole tensor as one vector.

    ValueError for an axis that is no int or list of ints.

    >>> [round(v, 4) for v in UnitNorm()(torch.tensor([3.0, 4.0])).tolist()]
    [0.6, 0.8]
    """

    def __init__(self, axis: Axis = 0):
        self.axis = _axis(axis)

    def __call__(self, w: Tensor) -> Tensor:
        """The projection of `w`, same shape and dtype."""
        return w / (epsilon() + _norms(w, self.axis))

    def get_config(self) -> dict[str, Any]:
        """{"axis": ...}."""
        return {"axis": self.axis}


@family.entry()
class MinMaxNorm(Constraint):
    """w * (rate * clip(n, min_value, max_value) + (1 - rate) * n) / (epsilon() + n), n the norm of w along `axis`.

    Args:
        min_value: default 0.
        max_value: default 1.
        rate: 1, the default, enforces the bounds at once; less moves the norm this share of the way at each update.
        axis: the axes that make up one vector, default 0: in a Dense kernel (input_dim, units), what enters one unit.
            None takes the whole tensor as one vector.

    ValueError for bounds that are negative, infinite or out of order, a rate outside [0, 1], or an axis that is no int
    or list of ints. A vector that is all 0 stays 0.

    >>> [round(v, 4) for v in MinMaxNorm(min_value=10.0, max_value=20.0)(torch.tensor([3.0, 4.0])).tolist()]
    [6.0, 8.0]
    """

    def __init__(self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Axis = 0):
        self.min_value = arguments.plain("min_value", min_value)
        self.max_value = arguments.plain("max_value", max_value)
        if self.min_value > self.max_value:
            raise ValueError(f"min_value must not exceed max_value, found {min_value!r} and {max_value!r}.")
        self.rate = arguments.plain("rate", rate, 0, 1, ends="[]")
        self.axis = _axis(axis)

    def __call__(self, w: Tensor) -> Tensor:
        """The projection of `w`, same shape and dtype."""
        norms = _norms(w, self.axis)
        wanted = self.rate * norms.clamp(self.min_value, self.max_value) + (1 - self.rate) * norms
        return w * (wanted / (epsilon() + norms))

    def get_config(self) -> dict[str, Any]:
        """{"min_value": ..., "max_value": ..., "rate": ..., "axis": ...}."""
        return {"min_value": self.min_value, "max_value": self.max_value, "rate": self.rate, "axis": self.axis}


max_norm = MaxNorm
min_max_norm = MinMaxNorm
non_neg = NonNeg
unit_norm = UnitNorm

# --- names ------------------------------------------------------------------------------------------------------------


def get(identifier: Any) -> Callable[[Tensor], Tensor] | None:
    """The constraint that `identifier` means.

    Args:
        identifier: None, a name, a Constraint, its class, a config, or a function from a tensor to a tensor.

    Raises ValueError for an unknown name, with near ones, and TypeError for what cannot be called.

    >>> get("max_norm").get_config()
    {'max_value': 2, 'axis': 0}
    """
    return family.get(identifier)


def serialize(constraint: Any) -> Any:
    """The JSON of a constraint, in Keras's form; None stays None.

    Raises ValueError, with the way out, for a lambda and for what has no `get_config` or the name of one of fanin's.
    """
    return family.serialize(constraint)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Callable[[Tensor], Tensor] | None:
    """The constraint that `serialize` described.

    Args:
        config: a config, a name, or None.
        custom_objects: names of your own functions and classes, for this call.

    Raises ValueError for a name that is not known.
    """
    return family.deserialize(config, custom_objects)


# --- any module -------------------------------------------------------------------------------------------------------


def constrain(module: nn.Module, rules: Mapping[str, Any]) -> list[str]:
    """Give parameters of any module a constraint, by patterns on their full names; None takes it away.

    Nothing is projected yet: `apply` does that, after each update.

    Args:
        module: any module; its parameters may still be lazy.
        rules: shell-style pattern -> constraint, or anything that `get` takes. The last match wins.

    Returns the full names that matched. ValueError for a pattern that matches nothing, and as from `get`; nothing is
    changed then.

    >>> constrain(nn.Linear(2, 3), {"*": lambda w: w.clamp(-0.01, 0.01)})
    ['weight', 'bias']
    """
    return set_facts(module, CONSTRAINTS, {pattern: get(value) for pattern, value in rules.items()})


def apply(module: nn.Module) -> None:
    """Project every constrained weight of a module and its submodules, in place and outside of gradients.

    Weights that are frozen, and lazy ones that have no values yet, are left alone; a shared weight is projected once.

    ValueError, naming the weight, for a constraint that returns another shape or dtype, and for a weight that the
    module computes anew (`parametrize`, pruning), where a change would be lost. No weight is written then, as long as
    your functions do not write into their argument.

    >>> model = nn.Linear(2, 3)
    >>> names = constrain(model, {"weight": "unit_norm"})
    >>> apply(model)
    >>> bool(torch.allclose(model.weight.norm(dim=0), torch.ones(2)))
    True
    """
    with torch.enable_grad():  # without gradients, a computed weight would look frozen
        facts = list(each_fact(module, CONSTRAINTS))
    found = [fact for fact in facts if fact[1].requires_grad and not is_lazy(fact[1])]
    with torch.no_grad():
        for weight, value in [(weight, _projected(name, weight, rule)) for name, weight, rule in found]:
            weight.copy_(value)


def _projected(name: str, weight: Tensor, constraint: Callable[[Tensor], Any]) -> Tensor:
    if not weight.is_leaf:
        raise ValueError(
            f"Weight {name!r} is computed from another parameter, so a constraint on it would be lost. "
            "Constrain that parameter instead (see named_parameters())."
        )
    try:
        value = constraint(weight)
    except Exception as error:
        error.add_note(f"While applying the constraint of weight {name!r}.")
        raise
    if not isinstance(value, Tensor):
        raise ValueError(f"The constraint of weight {name!r} must return a tensor, found {value!r}.")
    if value.shape != weight.shape or value.dtype != weight.dtype:
        raise ValueError(
            f"The constraint of weight {name!r} must keep its shape {tuple(weight.shape)} and dtype "
            f"{dtype_name(weight.dtype)}, found {tuple(value.shape)} and {dtype_name(value.dtype)}."
        )
    return value
