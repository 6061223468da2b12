"""One operation of Keras, and the torch function that does the same: read in both directions.

Keras writes `ops.mean(x, axis=1)` as an operation, its options in the config, its tensors as arguments of the call:

::

    {"module": "keras.src.ops.numpy", "class_name": "Mean", "config": {"axis": 1, "keepdims": false}, ...,
     "inbound_nodes": [{"args": [<tensor>], "kwargs": {}}]}

An `Operation` says which function that is, `torch.mean`, and how it calls the options; `table.py` has one for each
class. What a user may write in other ways (`x.max(1).values`) is brought to one by `spelling.py`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from fanin.dtypes import dtype_name
from fanin.errors import MismatchError
from fanin.graph.functions import Arguments, StoredCall, with_numbers
from fanin.registry import Family

NEEDED: Any = object()
"""Stands where an option has no default."""

_SEARCHED = (torch, functional, torch.Tensor)
Adapt = Callable[[tuple[Any, ...], dict[str, Any]], Arguments]

_ALIASES = {"axis": "dim", "keepdims": "keepdim", "dim0": "axis0", "dim1": "axis1"}


def _unchanged(args: tuple[Any, ...], options: dict[str, Any]) -> Arguments:
    return args, options


class Described(NamedTuple):
    """A call as an operation of Keras: the operation, the options in its config, the arguments of the call."""

    operation: Operation
    config: dict[str, Any]
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Option:
    """What Keras keeps in the config.

    Attributes:
        keras, torch: its names.
        keras_default, torch_default: what holds when it is left out; `NEEDED` if it cannot be.
    """

    keras: str
    torch: str
    keras_default: Any
    torch_default: Any


@dataclass(frozen=True, eq=False)
class Operation:
    """A class of Keras's operations.

    Attributes:
        module, __name__: where Keras has the class.
        function: what computes the same from tensors and options.
        inputs: the names of the tensors in torch; "*" for any number of them.
        options: what stands in the config, in torch's order.
        adapt: a last change to the arguments of `function`, from (tensors, options).
    """

    module: str
    name: str
    function: Callable[..., Any]
    inputs: tuple[str, ...]
    options: tuple[Option, ...] = ()
    adapt: Adapt = _unchanged

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def named(self) -> bool:
        """Whether its class takes a name in every release since Keras 3.6."""
        return not self.options and self.name not in ("StopGradient", "Trunc")

    # --- from a file -------------------------------------------------------------------------------------------

    def from_config(self, config: Mapping[str, Any]) -> StoredCall:
        """The call of the operation with this config."""
        return StoredCall(self.function, str(config.get("name", self.name)), partial(self._read, config))

    def _read(self, config: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        given = {**config, **kwargs}
        given.pop("name", None)
        options = {}
        for option in self.options:
            value = given.pop(option.keras, option.keras_default)
            if value is NEEDED or (value is None and option.torch_default is NEEDED):
                raise MismatchError(f"Keras's operation {self.name} needs a value for {option.keras!r}.")
            if value is not None and (value != option.torch_default or type(value) is not type(option.torch_default)):
                options[option.torch] = value
        unknown = [key for key, value in given.items() if value is not None and value is not False]
        if unknown or (len(args) != len(self.inputs) and self.inputs != ("*",)):
            raise MismatchError(
                f"Keras's operation {self.name} is known with {len(self.inputs)} arguments and the options "
                f"{[option.keras for option in self.options]}, found {len(args)} arguments and {unknown}."
            )
        return self.adapt(with_numbers(args), options)

    # --- to a file ---------------------------------------------------------------------------------------------

    def described(self, *args: Any, **config: Any) -> Described | None:
        """The call with these options; None if a file cannot hold one of them."""
        config = {key: dtype_name(value) if isinstance(value, torch.dtype) else value for key, value in config.items()}
        if not all(map(_is_plain, config.values())):
            return None
        return Described(self, {key: value for key, value in config.items() if key != "dtype" or value}, args)

    def spelled(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Described | None:
        """A call of `function`, or of another function with the same arguments, as this operation."""
        given = bound((*self.inputs, *(option.torch for option in self.options)), args, kwargs)
        if given is None:
            return None
        config = {option.keras: given.pop(option.torch, option.torch_default) for option in self.options}
        if any(value is NEEDED for value in config.values()) or len(given) < len(self.inputs):
            return None
        return self.described(*given.values(), **config)


def bound(names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a call by name, in the order of `names`; None if there are others."""
    spelled_out = {key if key in names else _ALIASES.get(key, key): value for key, value in kwargs.items()}
    given = dict(zip(names, args, strict=False)) | spelled_out
    if len(args) > len(names) or len(given) < len(args) + len(kwargs) or any(name not in names for name in given):
        return None
    return {name: given[name] for name in names if name in given}


def _is_plain(value: Any) -> bool:
    """Whether JSON has it."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value))


# --- all of them ------------------------------------------------------------------------------------------------------

operations: dict[str, Operation] = {}
spelled: dict[Callable[..., Any], Operation] = {}
"""What the plain call of a function is."""
_family: Family[Any] = Family("operation of Keras", "keras.src.ops.numpy")


def row(
    place: str,
    names: str = "",
    inputs: str = "input",
    function: Callable[..., Any] | None = None,
    adapt: Adapt = _unchanged,
    **options: Any,
) -> None:
    """Enter an operation.

    Args:
        place: the module and class in Keras, such as "ops.numpy.Mean".
        names: the functions and methods of torch that are called so; the first of them runs.
        inputs: torch's names of the tensors.
        function: what runs instead.
        adapt: see `Operation`.
        options: Keras's name = torch's name, or (torch's name, default), or (torch's name, default, torch's default).
    """
    found = [getattr(space, name) for name in names.split() for space in _SEARCHED if hasattr(space, name)]
    made = tuple(_option(name, value) for name, value in options.items())
    module, _, name = f"keras.src.{place}".rpartition(".")
    entry = Operation(module, name, function or found[0], tuple(inputs.split()), made, adapt)
    operations[name] = entry
    _family.add(entry, module=module)
    if inspect.isfunction(function) and function.__module__.startswith("fanin."):
        found.append(function)
    for spelling in found:
        spelled.setdefault(spelling, entry)


def _option(keras: str, value: Any) -> Option:
    if isinstance(value, str):
        return Option(keras, value, NEEDED, NEEDED)
    return Option(keras, value[0], value[1], value[-1])
