"""Weights as arguments describe them: `kernel_initializer`, `kernel_regularizer`, `kernel_constraint`, ..."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fanin import activations, constraints, initializers, regularizers
from fanin.layers.base.layer import Layer
from fanin.layers.base.placeholder import Placeholder
from fanin.weights import CONSTRAINTS, REGULARIZERS, get_fact, set_fact

_FAMILIES: dict[str, Any] = {
    "activation": activations,
    "constraint": constraints,
    "initializer": initializers,
    "regularizer": regularizers,
}


class Rule:
    """An argument such as `kernel_regularizer`: an attribute of the layer, in force on the weights of that part.

    Args:
        kind: `REGULARIZERS` or `CONSTRAINTS`.
        get: from an identifier to the object.
    """

    def __init__(self, kind: str, get: Callable[[Any], Any]):
        self.kind = kind
        self.get = get

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_{name}"
        self.part = name.rpartition("_")[0]

    def __get__(self, layer: Any, owner: Any = None) -> Any:
        return self if layer is None else layer.__dict__[self.name]

    def __set__(self, layer: Any, identifier: Any) -> None:
        value = layer.__dict__[self.name] = self.get(identifier)
        for weight in layer._ruled(self.part):
            set_fact(layer, self.kind, weight, value)


class Ruled(Layer):
    """A layer whose weights have their places and rules from the start, and their shapes from `build` on."""

    def _hold_place(self, name: str) -> None:
        """A placeholder that an optimizer can hold before the shape is known."""
        self.register_parameter(name, Placeholder(self._trainable, self._home, self.dtype_policy.variable))

    def _ruled(self, part: str) -> list[str]:
        """The names of the weights on which the rules of a part ("kernel") are in force."""
        return [part] if self._parameters.get(part) is not None else []

    def _fill(
        self, name: str, shape: tuple[int | None, ...], initializer: Any, dtype: Any = None, trainable: bool = True
    ) -> None:
        """Make a weight in its place, with its rules."""
        held = self._parameters.get(name)
        if held is not None and not isinstance(held, Placeholder):
            raise RuntimeError(
                f"Layer {self.name!r} is not built, so functional_call cannot replace its {name!r}: call it once."
            )
        self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=initializer,
            trainable=trainable,
            regularizer=get_fact(self, REGULARIZERS, name),
            constraint=get_fact(self, CONSTRAINTS, name),
        )

    def _use_initial_weights(self) -> None:
        """At the end of `build`: the values of the argument `weights`. ValueError if they do not fit."""
        if self._initial_weights is None:
            return
        self.built = True
        try:
            self.set_weights(self._initial_weights)
        except ValueError:
            self.built = False
            raise
        self._initial_weights = None

    def _described(self, *arguments: str) -> dict[str, Any]:
        """The config of arguments such as "kernel_initializer". ValueError, naming the argument, for what no
        file could bring back, such as a lambda."""
        config = {}
        for argument in arguments:
            family = _FAMILIES[argument.rpartition("_")[2]]
            try:
                config[argument] = family.serialize(getattr(self, argument))
            except ValueError as error:
                raise ValueError(f"Layer {self.name!r}, argument {argument!r}: {error}") from None
        return config
