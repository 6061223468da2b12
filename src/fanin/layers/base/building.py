"""Building: a layer makes its weights once, at the first sight of a shape, whatever mode or thread that happens in."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fanin.config import unique_name
from fanin.errors import NotYetError
from fanin.graph.infer import outside_transforms
from fanin.layers.base.input_spec import InputSpec
from fanin.layers.base.placeholder import Placeholder
from fanin.layers.base.weight_creation import WeightCreation

_first_build = threading.Lock()


class Building(WeightCreation):
    """The part of a layer that builds it.

    Subclasses write `build(self, input_shape)` and make their weights there. It is wrapped, so that it runs once, under
    a lock, outside `no_grad`, `inference_mode`, functorch's transforms and tracing, and leaves nothing behind if it
    fails.
    """

    _adopt_lists: Any
    _build_shape: Any
    _build_shapes: dict[str, Any] | None = None  # by name, of a layer that is built for several inputs
    _scope: str | None
    input_spec: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__:
            cls.build = _once(cls.__dict__["build"])  # type: ignore[method-assign]

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape (a tuple, None where unknown; a list for several inputs).

        A `build(self, left_shape, right_shape)` gets the shapes of the arguments `left` and `right` of `call`.
        """

    def _mark_built(self) -> None:
        self._enter_scope()
        self.built = True

    def _enter_scope(self) -> None:
        """Take a name scope at the first use."""
        if self._scope is None:
            self.__dict__["_scope"] = unique_name(f"scope of {self.name}").removeprefix("scope of ")

    @property
    def scope_name(self) -> str:
        """The name scope of the weights: the layer's name, made unique. NotYetError before the layer is first used."""
        if self._scope is None:
            raise NotYetError(f"Layer {self.name!r} has no scope name yet: it was never called or built.")
        return self._scope


def _once(build: Callable[..., None]) -> Callable[..., None]:
    """`build` made safe: once, locked, outside all modes, rolled back on failure."""

    @functools.wraps(build)
    def guarded(self: Building, *args: Any, **kwargs: Any) -> None:
        if self.__dict__.get("_building") == threading.get_ident():  # super().build(...) from a subclass
            build(self, *args, **kwargs)
            return
        with _lock_of(self), _clean_modes():
            if self.built:
                return
            if torch.compiler.is_exporting():
                raise RuntimeError(
                    f"Layer {self.name!r} is not built, so the export would hold none of its weights. "
                    "Call it once, or build it, before torch.export."
                )
            self._adopt_lists()
            waiting = [p for p in self._parameters.values() if isinstance(p, Placeholder)]
            before = {*self._parameters}, {*self._buffers}, {*self._modules}, waiting, self.input_spec
            self.__dict__["_building"] = threading.get_ident()
            try:
                build(self, *args, **kwargs)
            except BaseException:
                _roll_back(self, *before)
                raise
            finally:
                del self.__dict__["_building"]
            shape = args[0] if args else next(iter(kwargs.values()), None)
            self.__dict__["_build_shape"] = shape
            if len(kwargs) > 1:
                self.__dict__["_build_shapes"] = kwargs
            self._mark_built()

    return guarded


Building.build = _once(Building.build)  # type: ignore[method-assign]  # a layer without weights is built as well


def _lock_of(layer: Building) -> Any:
    lock = layer.__dict__.get("_lock")
    if lock is None:
        with _first_build:
            lock = layer.__dict__.setdefault("_lock", threading.RLock())
    return lock


@contextmanager
def _clean_modes() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad(), outside_transforms():
        yield


def _roll_back(
    layer: Building,
    parameters: set[str],
    buffers: set[str],
    modules: set[str],
    waiting: list[Any],
    spec: InputSpec | None,
) -> None:
    """Take away what a failed build made. A placeholder that it filled becomes a placeholder again."""
    for name in [n for n in layer._parameters if n not in parameters]:
        del layer._parameters[name]
    for name in [n for n in layer._buffers if n not in buffers]:
        del layer._buffers[name]
    for name in [n for n in layer._modules if n not in modules]:
        del layer._modules[name]
    for parameter in waiting:
        if not isinstance(parameter, Placeholder):
            with torch.no_grad():
                parameter.data = torch.empty(0, device=parameter.device, dtype=parameter.dtype)
            parameter.__class__ = Placeholder  # in place: an optimizer may hold it
    layer.input_spec = spec
