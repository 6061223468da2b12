"""Regularizers: a tensor in, a scalar penalty out. For layers, and for the weights of any `torch.nn.Module`.

In a plain PyTorch loop::

    regularizers.regularize(model, {"*.weight": "l2"})
    loss = loss_function(model(x), y) + regularizers.penalty(model)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fanin import arguments, config
from fanin.registry import Family, custom_object_scope, get_registered_object
from fanin.weights import REGULARIZERS, each_fact, set_facts

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "OrthogonalRegularizer",
    "Regularizer",
    "deserialize",
    "get",
    "l1",
    "l1_l2",
    "l2",
    "orthogonal_regularizer",
    "penalties",
    "penalty",
    "regularize",
    "serialize",
]

R = TypeVar("R", bound="Regularizer")


class Regularizer:
    """The base class: override `__call__(x) -> scalar tensor`, and `get_config` if it is to be saved.

    A plain function from a tensor to a scalar tensor serves as well.

    >>> class Largest(Regularizer):
    ...     def __call__(self, x):
    ...         return x.abs().max()
    >>> Largest()(torch.tensor([1.0, -3.0])).item()
    3.0
    """

    def __call__(self, x: Tensor) -> Tensor:
        """The penalty of `x`, a scalar tensor; 0 in the base class."""
        return x.new_zeros(())

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain JSON data. NotImplementedError unless overridden."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to save it: give it get_config().")

    @classmethod
    def from_config(cls: type[R], config: Mapping[str, Any]) -> R:
        """The regularizer that `get_config` described."""
        return cls(**config)


family: Family[Callable[[Tensor], Tensor]] = Family("regularizer", "keras.regularizers", Regularizer)
family.add(Regularizer)


@family.entry()
class L1(Regularizer):
    """l1 * sum(|x|).

    Args:
        l1: the factor, default 0.01. ValueError if it is negative, infinite, nan or no number.

    Source: Tibshirani 1996 (the lasso).

    >>> L1(0.5)(torch.tensor([1.0, -3.0])).item()
    2.0
    """

    def __init__(self, l1: float | None = 0.01):
        self.l1 = arguments.number("l1", 0.01 if l1 is None else l1)

    def __call__(self, x: Tensor) -> Tensor:
        """The penalty of `x`, a scalar tensor."""
        return self.l1 * torch.sum(torch.abs(x))

    def get_config(self) -> dict[str, Any]:
        """{"l1": ...}."""
        return {"l1": self.l1}


@family.entry()
class L2(Regularizer):
    """l2 * sum(x^2); no factor 1/2, so its gradient is 2 * l2 * x.

    Args:
        l2: the factor, default 0.01. ValueError if it is negative, infinite, nan or no number.

    Source: Hoerl & Kennard 1970 (ridge regression).

    >>> L2(0.5)(torch.tensor([1.0, -3.0])).item()
    5.0
    """

    def __init__(self, l2: float | None = 0.01):
        self.l2 = arguments.number("l2", 0.01 if l2 is None else l2)

    def __call__(self, x: Tensor) -> Tensor:
        """The penalty of `x`, a scalar tensor."""
        return self.l2 * torch.sum(torch.square(x))

    def get_config(self) -> dict[str, Any]:
        """{"l2": ...}."""
        return {"l2": self.l2}


@family.entry("l1l2", "l1_l2")
class L1L2(Regularizer):
    """l1 * sum(|x|) + l2 * sum(x^2).

    Args:
        l1: the factor of the first sum, default 0.
        l2: the factor of the second sum, default 0.

    ValueError for a factor that is negative, infinite, nan or no number. The name "l1_l2" means L1L2(0.01, 0.01), as
    Keras documents it; the names "l1l2" and "L1L2" mean L1L2(), which is 0.

    Source: Zou & Hastie 2005 (the elastic net).

    >>> L1L2(l1=1.0, l2=0.5)(torch.tensor([1.0, -3.0])).item()
    9.0
    """

    def __init__(self, l1: float | None = 0.0, l2: float | None = 0.0):
        self.l1 = arguments.number("l1", 0.0 if l1 is None else l1)
        self.l2 = arguments.number("l2", 0.0 if l2 is None else l2)

    def __call__(self, x: Tensor) -> Tensor:
        """The penalty of `x`, a scalar tensor."""
        total = x.new_zeros(())
        if self.l1:
            total = total + self.l1 * torch.sum(torch.abs(x))
        if self.l2:
            total = total + self.l2 * torch.sum(torch.square(x))
        return total

    def get_config(self) -> dict[str, Any]:
        """{"l1": ..., "l2": ...}."""
        return {"l1": self.l1, "l2": self.l2}


@family.entry()
class OrthogonalRegularizer(Regularizer):
    """factor * the mean of |cos(a, b)| over all pairs of rows (or columns) of a matrix, a / max(|a|, epsilon()) each.

    Args:
        factor: default 0.01.
        mode: "rows" (default) or "columns". Of a Dense kernel (input_dim, units), the columns are the units.

    A row of zeros counts as orthogonal to all others; one row alone has no pairs, and the penalty is 0.
    ValueError for a bad factor or mode, and, at the call, for a tensor that is no matrix.

    >>> OrthogonalRegularizer(factor=1.0)(torch.tensor([[2.0, 0.0], [3.0, 0.0]])).item()
    1.0
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows"):
        self.factor = arguments.number("factor", factor)
        if mode not in ("rows", "columns"):
            raise ValueError(f"mode must be 'rows' or 'columns', found {mode!r}.")
        self.mode = mode

    def __call__(self, x: Tensor) -> Tensor:
        """The penalty of `x`, a matrix; a scalar tensor."""
        if x.ndim != 2:
            raise ValueError(f"OrthogonalRegularizer works on matrices, found a tensor of shape {tuple(x.shape)}.")
        rows = F.normalize(x if self.mode == "rows" else x.t(), dim=1, eps=config.epsilon())
        count = rows.shape[0]
        cosines = torch.abs(rows @ rows.t())
        above = torch.sum(torch.triu(cosines, diagonal=1))
        return self.factor * above / max(count * (count - 1) / 2, 1)

    def get_config(self) -> dict[str, Any]:
        """{"factor": ..., "mode": ...}."""
        return {"factor": self.factor, "mode": self.mode}


l1 = L1
l2 = L2
l1_l2 = L1L2
orthogonal_regularizer = OrthogonalRegularizer

# --- names ------------------------------------------------------------------------------------------------------------


def get(identifier: Any) -> Callable[[Tensor], Tensor] | None:
    """The regularizer that `identifier` means.

    Args:
        identifier: None, a name, a Regularizer, its class, a config, or a function from a tensor to a scalar tensor.

    Raises ValueError for an unknown name, with near ones, and TypeError for what cannot be called.

    >>> get("l1_l2").get_config()
    {'l1': 0.01, 'l2': 0.01}
    """
    if isinstance(identifier, str) and identifier == "l1_l2" and get_registered_object("l1_l2") is None:
        return L1L2(l1=0.01, l2=0.01)
    return family.get(identifier)


def serialize(regularizer: Any) -> Any:
    """The JSON of a regularizer, in Keras's form; None stays None.

    Raises ValueError, with the way out, for a lambda and for what has no `get_config` or the name of one of fanin's.
    """
    return family.serialize(regularizer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Callable[[Tensor], Tensor] | None:
    """The regularizer that `serialize` described.

    Args:
        config: a config, a name, or None.
        custom_objects: names of your own functions and classes, for this call.

    Raises ValueError for a name that is not known.
    """
    if isinstance(config, str):
        with custom_object_scope(custom_objects):
            return get(config)
    return family.deserialize(config, custom_objects)


# --- any module -------------------------------------------------------------------------------------------------------


def regularize(module: nn.Module, rules: Mapping[str, Any]) -> list[str]:
    """Give parameters of any module a regularizer, by patterns on their full names; None takes it away.

    Args:
        module: any module; its parameters may still be lazy.
        rules: shell-style pattern -> regularizer, or anything that `get` takes. The last match wins.

    Returns the full names that matched. ValueError for a pattern that matches nothing, and as from `get`; nothing is
    changed then.

    >>> regularize(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), {"*.weight": L2(1e-4)})
    ['0.weight', '1.weight']
    """
    return set_facts(module, REGULARIZERS, {pattern: get(value) for pattern, value in rules.items()})


def penalties(module: nn.Module) -> list[Tensor]:
    """The penalty of every regularized weight of a module and its submodules that trains: scalars with gradients.

    A shared weight counts once; frozen weights and lazy ones that have no values yet count not at all. ValueError for
    a regularizer that does not return a scalar, naming the weight.
    """
    with torch.enable_grad():  # without gradients, a weight that the module computes would look frozen
        facts = list(each_fact(module, REGULARIZERS))
    return [
        _penalty_of(name, weight, regularizer)
        for name, weight, regularizer in facts
        if weight.requires_grad and not is_lazy(weight)
    ]


def _penalty_of(name: str, weight: Tensor, regularizer: Callable[[Tensor], Any]) -> Tensor:
    try:
        value = regularizer(weight)
    except Exception as error:
        error.add_note(f"While computing the penalty of weight {name!r}.")
        raise
    if arguments.is_real(value):
        value = weight.new_tensor(float(value))
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"The regularizer of weight {name!r} must return a scalar tensor, found {found}.")
    return value.reshape(())


def penalty(module: nn.Module) -> Tensor:
    """The sum of `penalties(module)`, to add to the loss of a plain PyTorch loop; a tensor 0.0 if there are none.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> names = regularize(model, {"weight": L1(0.5)})
    >>> bool(penalty(model) == 0.5 * model.weight.abs().sum())
    True
    """
    values = penalties(module)
    total = values[0] if values else torch.zeros((), device="cpu")
    for value in values[1:]:
        total = total + value
    return total
