"""What a layer is, as plain JSON data: its config, and the shapes that it was built for."""

from __future__ import annotations

import inspect
from typing import Any, Self

from fanin import regularizers
from fanin.layers.base.building import Building
from fanin.registry import deserialize, serialize


class Configuration(Building):
    """The part of a layer that describes it.

    A subclass that takes arguments writes `get_config`; if it does not, the arguments that it was given describe it.
    """

    _init_arguments: tuple[tuple[Any, ...], dict[str, Any]]

    @classmethod
    def _is_described_by_arguments(cls) -> bool:
        """Whether the class leaves it to its bases to describe the arguments that it adds."""
        return False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the arguments, so that a subclass without `get_config` can be described by them."""
        layer = super().__new__(cls)
        if cls._is_described_by_arguments():
            object.__setattr__(layer, "_init_arguments", (args, kwargs))
        return layer

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal layer, as plain JSON data; subclasses add theirs."""
        described = {"name": self.name, "trainable": self.trainable, "dtype": serialize(self.dtype_policy)}
        if self.activity_regularizer is not None:
            described["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        if self._is_described_by_arguments():
            described.update(self._described_arguments())
        return described

    def _described_arguments(self) -> dict[str, Any]:
        """The arguments given to a subclass that has no `get_config`, if they are plain data or known objects."""
        args, kwargs = self._init_arguments
        signature = inspect.signature(type(self).__init__)
        kinds = {parameter.kind: name for name, parameter in signature.parameters.items()}
        positional = kinds.get(inspect.Parameter.VAR_POSITIONAL, "")
        bound = signature.bind(self, *args, **kwargs).arguments
        bound.pop(next(iter(signature.parameters)))  # self
        extra = bound.pop(kinds.get(inspect.Parameter.VAR_KEYWORD, ""), {})
        try:
            if bound.get(positional):
                raise ValueError("*arguments have no names.")
            return {key: serialize(value) for key, value in {**bound, **extra}.items() if key not in ("name", "dtype")}
        except ValueError as error:
            raise NotImplementedError(
                f"Layer {type(self).__name__} takes arguments that are no plain data, so it needs a get_config of its "
                f"own: {error}"
            ) from error

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A layer equal to the one that `get_config` described; its weights are new. `config` is left unchanged."""
        if cls._is_described_by_arguments():
            config = {key: deserialize(value) for key, value in config.items()}
        return cls(**config)

    def get_build_config(self) -> dict[str, Any] | None:
        """The input shape that the layer was built for, as plain JSON data, or None; of several, a dict by name."""
        if not self.built or self._build_shape is None:
            return None
        if self._build_shapes:
            return {"shapes_dict": serialize(self._build_shapes)}
        return {"input_shape": serialize(self._build_shape)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build for the input shapes that `get_build_config` noted."""
        if self.built:
            return
        if "shapes_dict" in config:
            self.build(**{name: _shapes(shape) for name, shape in config["shapes_dict"].items()})
        elif config.get("input_shape") is not None:
            self.build(_shapes(config["input_shape"]))


def _shapes(value: Any) -> Any:
    """A shape from plain data; several stay a list."""
    return value if any(isinstance(size, list) for size in value) else tuple(value)
