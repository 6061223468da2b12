"""`add_weight`: how a layer makes a weight."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fanin import arguments, constraints, initializers, regularizers
from fanin.dtypes import DTypePolicy, as_dtype
from fanin.layers.base.convert import as_tensor
from fanin.layers.base.own_variables import OwnVariables
from fanin.layers.base.placeholder import Placeholder
from fanin.layers.base.uninitialized import uninitialized_weight
from fanin.layers.base.variables import Variables
from fanin.weights import CONSTRAINTS, REGULARIZERS, set_fact

_ORDER_2017 = ("name", "shape", "dtype", "initializer", "regularizer", "trainable", "constraint")
_ORDER_KERAS3 = ("shape", "initializer", "dtype", "trainable", "autocast", "regularizer", "constraint", "aggregation",
                 "overwrite_with_gradient", "name")  # fmt: skip
_WITHOUT_MEANING_HERE = (
    "autocast",
    "aggregation",
    "overwrite_with_gradient",
    "layout",
    "synchronization",
    "use_resource",
)
_NAME = re.compile(r"[A-Za-z0-9_]+")


class WeightCreation(Variables, OwnVariables):
    """The part of a layer that makes weights."""

    dtype_policy: DTypePolicy
    _home: torch.device | None
    _unnamed: set[str]

    def add_weight(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Make a weight, fill it by its initializer, and return it.

        Takes Keras 3's order (shape, initializer, dtype, trainable, autocast, regularizer, constraint, aggregation,
        overwrite_with_gradient, name) or that of 2017 (name, shape, dtype, initializer, regularizer, trainable,
        constraint), told apart by whether the first argument is a string.

        Args:
            name: letters, digits and underscores; the key in `state_dict`. Unnamed: that of the attribute it is put in.
            shape: a tuple of ints, () if not given.
            dtype: a dtype or its name; default the policy's `variable_dtype`.
            initializer: default glorot_uniform for floats, zeros for others.
            regularizer: adds one entry to `losses` while the weight trains.
            trainable: True makes a Parameter, False a buffer.
            constraint: applied after each update.

        Returns the weight; the existing one if the layer has one of that name. Another shape is a ValueError.
        """
        order = _ORDER_2017 if args and isinstance(args[0], str) else _ORDER_KERAS3
        if len(args) > len(order):
            raise TypeError(f"add_weight takes at most {len(order)} positional arguments, found {len(args)}.")
        given = dict(zip(order, args, strict=False))
        for key, value in kwargs.items():
            if key in given:
                raise TypeError(f"add_weight got {key!r} twice.")
            if key not in _ORDER_KERAS3 and key not in _WITHOUT_MEANING_HERE:
                raise TypeError(f"add_weight has no argument {key!r}; it takes {', '.join(_ORDER_2017)}.")
            given[key] = value
        for key in _WITHOUT_MEANING_HERE:
            given.pop(key, None)
        return self.add_variable(**given)

    def add_variable(
        self,
        name: str | None = None,
        shape: Sequence[int] | int | None = None,
        dtype: Any = None,
        initializer: Any = None,
        regularizer: Any = None,
        trainable: bool = True,
        constraint: Any = None,
    ) -> torch.Tensor:
        """Make a weight, or return the existing one of that name (2017's name for `add_weight`)."""
        automatic = name is None
        name = self._free_name() if name is None else self._checked_name(name)
        size = self._checked_shape(name, shape)
        existing = self._parameters[name] if name in self._parameters else self._buffers.get(name)
        if existing is not None and not is_lazy(existing):
            if tuple(existing.shape) != size:
                raise ValueError(
                    f"Layer {self.name!r} already has a weight {name!r} of shape {tuple(existing.shape)}, found {size}."
                )
            return existing
        kind = self.dtype_policy.variable if dtype is None else as_dtype(dtype)
        penalty, limit = regularizers.get(regularizer), constraints.get(constraint)
        value = self._initial(name, size, kind, initializer)
        weight = self._register(name, value, trainable)
        if automatic:
            self._unnamed.add(name)
        set_fact(self, REGULARIZERS, name, penalty)
        set_fact(self, CONSTRAINTS, name, limit)
        return weight

    def _initial(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, initializer: Any) -> torch.Tensor:
        """The first value of a weight; on the meta device, without drawing."""
        if initializer is None:
            initializer = "glorot_uniform" if dtype.is_floating_point else "zeros"
        draw = initializers.get(initializer)
        assert draw is not None
        if self._home is not None and self._home.type == "meta":
            return torch.empty(shape, dtype=dtype, device="meta")
        unfilled = uninitialized_weight(f"{self.name}.{name}", shape, dtype, self._home)
        if unfilled is not None and not self._loads_itself():
            return unfilled
        try:
            with torch.no_grad():
                value = as_tensor(draw(shape, dtype=dtype), f"the initializer of {self.name}.{name}")
        except RuntimeError as error:
            if "allocate memory" not in str(error):
                raise
            size = math.prod(shape) * dtype.itemsize / 1e9
            raise MemoryError(
                f"Weight {name!r} of layer {self.name!r}, shape {shape}, needs {size:,.1f} GB, more than there is."
            ) from None
        if tuple(value.shape) != shape:
            raise ValueError(
                f"The initializer of weight {name!r} of layer {self.name!r} returned shape {tuple(value.shape)}, "
                f"expected {shape}."
            )
        # A copy: an initializer may hand out a tensor that belongs to somebody else.
        return value.detach().to(device=self._home, dtype=dtype, copy=True).contiguous()

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As nn.Module's. A weight that comes back, from pruning or a parametrization, stands where it stood: the order
        of weights is what files and `get_weights` have."""
        places: list[str] = self.__dict__.setdefault("_weight_places", [])
        comes_back = name in places and name not in self._parameters
        super().register_parameter(name, param)
        if name not in places:
            places.append(name)
        elif comes_back:
            for other in [each for each in places if each in self._parameters]:
                self._parameters[other] = self._parameters.pop(other)

    def _register(self, name: str, value: torch.Tensor, trainable: bool) -> torch.Tensor:
        waiting = self._parameters.get(name)
        if isinstance(waiting, Placeholder):
            with torch.no_grad():
                waiting.materialize((0,), device=value.device, dtype=value.dtype)
                waiting.data = value  # which nobody else has
            return waiting
        if not trainable:
            self.register_buffer(name, value)
            return value
        if name in self.__dict__.get("_weight_places", ()):
            self.__dict__["_weight_places"].remove(name)  # made anew, it is the last
        differentiable = value.dtype.is_floating_point or value.dtype.is_complex
        weight = nn.Parameter(value, requires_grad=differentiable and self._trainable)
        self.register_parameter(name, weight)
        return weight

    def _free_name(self) -> str:
        taken = {**self._parameters, **self._buffers}
        numbered = (f"variable_{number}" for number in itertools.count(1))
        return next(name for name in itertools.chain(["variable"], numbered) if name not in taken)

    def _checked_name(self, name: Any) -> str:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                f"Layer {self.name!r}: a weight's name is made of letters, digits and underscores, found {name!r}."
            )
        return name

    def _checked_shape(self, name: str, shape: Any) -> tuple[int, ...]:
        size = () if shape is None else (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        if not all(arguments.is_whole(n, 0) for n in size):
            raise ValueError(
                f"Layer {self.name!r}: the shape of weight {name!r} must be made of known sizes, found {shape!r}."
            )
        return tuple(int(n) for n in size)
