"""The weights of a layer: made by `add_weight`, listed, counted, read and written, frozen and thawed."""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fanin import constraints, initializers, regularizers
from fanin.dtypes import DTypePolicy, as_dtype
from fanin.errors import TooLargeError
from fanin.layers.convert import as_tensor, checked_cast
from fanin.layers.held import set_held
from fanin.layers.placeholder import Placeholder
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


class _Allowance(threading.local):
    left: int | None = None

    def take(self, what: str, size: int) -> None:
        assert self.left is not None
        if size > self.left:
            raise TooLargeError(f"Weight {what} needs {size} bytes, and the file has only {self.left} left to fill it.")
        self.left -= size


_allowance = _Allowance()


@contextmanager
def unfilled_weights(limit: int) -> Iterator[None]:
    """Inside the block, in this thread, new weights are memory without values, at most `limit` bytes of it together.

    For loaders, which write every value afterwards. Nothing is drawn. A weight beyond the limit is a TooLargeError,
    before its memory is taken.
    """
    before, _allowance.left = _allowance.left, limit
    try:
        yield
    finally:
        _allowance.left = before


def own_weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The module's own weights: Parameters in the order of creation, then persistent buffers."""
    for name, parameter in module._parameters.items():
        if parameter is not None and not is_lazy(parameter):
            yield name, getattr(module, name)
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            yield name, buffer


def named_weights(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """All weights of a module and its submodules with their full names, module by module, shared ones once."""
    seen: set[int] = set()
    found = []
    for prefix, owner in module.named_modules():
        for name, weight in own_weights(owner):
            if id(weight) not in seen:
                seen.add(id(weight))
                found.append((f"{prefix}.{name}" if prefix else name, weight))
    return found


class Variables(nn.Module):
    """The part of a layer that owns weights. `weights` lists Parameters first; freezing never reorders."""

    name: str
    built: bool
    dtype_policy: DTypePolicy
    _trainable: bool
    _home: torch.device | None
    _aliases: dict[str, str]
    _unnamed: set[str]

    # --- making ----------------------------------------------------------------------------------------------

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
        if _allowance.left is not None:
            _allowance.take(f"{self.name}.{name}", math.prod(shape) * dtype.itemsize)
            return torch.empty(shape, dtype=dtype, device=self._home)
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
        if any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0 for n in size):
            raise ValueError(
                f"Layer {self.name!r}: the shape of weight {name!r} must be made of known sizes, found {shape!r}."
            )
        return tuple(int(n) for n in size)

    # --- listing ---------------------------------------------------------------------------------------------

    @property
    def weights(self) -> list[torch.Tensor]:
        """All weights, also those of sublayers: each layer's Parameters, then its buffers. [] before build."""
        return [weight for _, weight in named_weights(self)]

    @property
    def trainable_weights(self) -> list[torch.Tensor]:
        """The weights that train now: Parameters with `requires_grad`."""
        return [weight for weight in self.weights if isinstance(weight, nn.Parameter) and weight.requires_grad]

    @property
    def non_trainable_weights(self) -> list[torch.Tensor]:
        """The weights that do not train now: frozen Parameters, and buffers."""
        return [weight for weight in self.weights if not (isinstance(weight, nn.Parameter) and weight.requires_grad)]

    @property
    def variables(self) -> list[torch.Tensor]:
        """As `weights`."""
        return self.weights

    @property
    def trainable_variables(self) -> list[torch.Tensor]:
        """As `trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[torch.Tensor]:
        """As `non_trainable_weights`."""
        return self.non_trainable_weights

    @property
    def trainable(self) -> bool:
        """Whether training changes the layer: one truth with `requires_grad` of its Parameters, sublayers included."""
        parameters = list(self.parameters())
        return any(p.requires_grad for p in parameters) if parameters else self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"Layer {self.name!r}: trainable must be True or False, found {value!r}.")
        set_trainable(self, bool(value))

    def count_params(self) -> int:
        """The number of scalars in all weights. ValueError before build."""
        if not self.built:
            raise ValueError(
                f"Layer {self.name!r} has no weights to count yet: call it once, or build it with a shape."
            )
        return sum(weight.numel() for weight in self.weights)

    # --- reading and writing ---------------------------------------------------------------------------------

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Copies of all weights as numpy arrays, in the order of `weights`; bfloat16 as float32. [] before build."""
        return [to_numpy(weight) for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Write all weights, in the order of `weights`.

        A wrong count or shape is a ValueError that names the weight and both shapes, a number that the weight's dtype
        cannot hold too, and complex numbers for a real weight are a TypeError; nothing is changed then.
        """
        names = named_weights(self)
        values = list(weights)
        if not self.built and values:
            raise ValueError(f"Layer {self.name!r} has no weights to set yet: call it once, or build it with a shape.")
        if len(values) != len(names):
            raise ValueError(f"Layer {self.name!r} has {len(names)} weights, found {len(values)} values.")
        arrays = [
            as_tensor(value, f"value for {self.name}.{name}") for value, (name, _) in zip(values, names, strict=True)
        ]
        for (name, weight), array in zip(names, arrays, strict=True):
            if weight.shape != array.shape:
                raise ValueError(
                    f"Weight {name!r} of layer {self.name!r} has shape {tuple(weight.shape)}, "
                    f"found a value of shape {tuple(array.shape)}."
                )
            if array.is_complex() and not weight.is_complex():
                raise TypeError(f"Weight {name!r} of layer {self.name!r} takes real numbers, found {array.dtype}.")
        arrays = [
            checked_cast(array, weight.dtype, f"value for {self.name}.{name}")
            for (name, weight), array in zip(names, arrays, strict=True)
        ]
        with torch.no_grad():
            for (_, weight), array in zip(names, arrays, strict=True):
                weight.copy_(array)

    # --- dtype and device ------------------------------------------------------------------------------------

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Let `.to`, `.half`, `.double`, ... move the dtype policy and the place of weights still to be made along."""
        lazy = ((name, p) for name, p in self._parameters.items() if isinstance(p, Placeholder))
        waiting = {name: cast(nn.Parameter, p).requires_grad for name, p in lazy}
        result = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, trains in waiting.items():
            moved = self._parameters[name]
            if moved is not None and not is_lazy(moved):  # torch replaces it on the way to the meta device
                self._parameters[name] = Placeholder(trains, moved.device, moved.dtype)
        before = torch.empty(0, dtype=self.dtype_policy.variable, device=self._home)
        after = cast(torch.Tensor, fn(before))
        if after.dtype != before.dtype:
            self._set_policy(self.dtype_policy.moved_to(after.dtype))
        if after.device != before.device:
            self.__dict__["_home"] = after.device
        return result

    def _set_policy(self, policy: DTypePolicy) -> None:
        self.__dict__["dtype_policy"] = policy
        self.__dict__["_compute"] = policy.compute
        if self.__dict__.get("_direct_dtype") is not None:
            self.__dict__["_direct_dtype"] = policy.compute
        self.__dict__["_plain"] = policy.compute is policy.variable


def set_trainable(module: nn.Module, value: bool) -> None:
    """Freeze or thaw a module and everything in it; a kernel that an adapter stands in for stays frozen."""
    held: set[int] = set()
    for part in module.modules():
        held.update(set_held(part, value))
        if isinstance(part, Variables):
            part.__dict__["_trainable"] = value
    for parameter in module.parameters():
        if (parameter.dtype.is_floating_point or parameter.dtype.is_complex) and id(parameter) not in held:
            parameter.requires_grad_(value)


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """A copy as a numpy array; bfloat16, which numpy lacks, as float32."""
    tensor = tensor.detach()
    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return tensor.cpu().numpy().copy()
