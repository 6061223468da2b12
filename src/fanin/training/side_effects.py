"""Side effects of traced calls, which a program would not repeat, or always with the same value: they are refused."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

from fanin.errors import NotTraceableError
from fanin.layers.base.layer import Layer
from fanin.program.effects import draws_random
from fanin.program.trace import Traced
from fanin.training.guards.guard import Guard
from fanin.training.guards.reachable import generators_within, tensors_within

_SOURCES = (random.Random, np.random.Generator, np.random.RandomState)  # types of generators other than torch's
_GLOBAL_SOURCES: list[Any] = [random.random.__self__, np.random.rand.__self__]  # type: ignore[attr-defined]
_READS = {
    getattr(Tensor, name)
    for name in ("item", "tolist", "numpy", "__array__", "__float__", "__int__", "__bool__", "__index__")
}


class SideEffects:
    """Watches calls of a module while they are traced.

    Attributes:
        reads_values: whether a call turned a tensor that is not traced into a Python or numpy value.
        asks_for_state: whether a call seeded torch's random numbers or read their state.
    """

    def __init__(self, module: nn.Module, guard: Guard):
        self._module, self._guard = module, guard
        self.reads_values = self.asks_for_state = False

    def watching(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, watched: its calls set the attributes."""

        @wraps(function)
        def watched(*args: Any) -> Any:
            with _ReadWatcher(self), _watch_seeding(self):
                return function(*args)

        return watched

    def check(self, traced: Traced) -> None:
        """NotTraceableError if calls keep a fake tensor, or draw from a generator that they make or seed themselves."""
        _refuse_kept_tensors(self._module, traced)
        known = {_source(one) for one in _generators(self._module, self._guard)}
        used = {_source(one) for one in traced.static.values() if isinstance(one, torch.Generator)}
        if not used <= known:
            raise NotTraceableError("a call makes a generator of random numbers")
        if self.asks_for_state and any(map(draws_random, traced.graph.nodes)):
            raise NotTraceableError(
                "a call draws random numbers, and seeds them or asks for their state as checkpoints do"
            )


@contextmanager
def without_side_effects(module: nn.Module, extra_objects: Iterable[Any] = ()) -> Iterator[SideEffects]:
    """A block that traces calls of a module: NotTraceableError if they change what it or an object in `beside` keeps in
    Python, read the value of a tensor that may change, or draw random numbers in a way that a program cannot repeat.
    If the block fails, all of that is restored.

    The block traces `effects.watching(function)` and passes the graph to `effects.check`.
    """
    before = Guard(module, extra_objects)
    for one in before.values():
        if hasattr(type(one), "__next__"):
            raise NotTraceableError(f"a call reads a {type(one).__name__}, which may give something else each time")
    drawn_from = [*_GLOBAL_SOURCES, *(one for one in before.values() if type(one) in _SOURCES)]
    sources = [(one, pickle.dumps(one)) for one in drawn_from]
    generators = [(one, one.get_state()) for one in (torch.default_generator, *_generators(module, before))]
    own = {*map(id, chain(module.parameters(), module.buffers()))}  # programs may mutate these
    found = [one for one in tensors_within(before.values()) if id(one) not in own and not one.is_inference()]
    kept = [(one, one._version, one.detach().clone()) for one in found]
    try:
        effects = SideEffects(module, before)
        yield effects
        if before.difference() is not None:
            raise NotTraceableError("a call changes what Python keeps")
        if any(one._version != version for one, version, _ in kept):
            raise NotTraceableError("a call changes a tensor in place that is no buffer")
        if any(pickle.dumps(source) != state for source, state in sources):
            raise NotTraceableError("a call draws random numbers that are not torch's")
        if not all(torch.equal(generator.get_state(), rng_state) for generator, rng_state in generators):
            raise NotTraceableError("a call seeds torch's random numbers")
        if effects.reads_values:
            raise NotTraceableError("a call reads the value of a tensor that is no buffer")
    except Exception as error:
        difference = before.difference() if isinstance(error, NotTraceableError) else None
        before.restore()
        for source, state in sources:
            _restore(source, pickle.loads(state))
        for generator, rng_state in generators:
            generator.set_state(rng_state)
        with torch.no_grad():
            for one, version, value in kept:
                if one._version != version:
                    one.copy_(value)
        if difference is not None:  # the more specific message
            raise NotTraceableError(f"a call changes {difference}") from error
        raise


def _refuse_kept_tensors(module: nn.Module, traced: Traced) -> None:
    """NotTraceableError if calls of a module keep a fake tensor, which later calls would read in place of a real one.

    Modules with fanin's layers are not checked: these keep losses and masks, which the next call replaces.
    """
    kept = [] if any(isinstance(part, Layer) for part in module.modules()) else traced.leaked()
    traced.created.clear()
    for one in kept:
        raise NotTraceableError(
            f"a call keeps a tensor of shape {tuple(one.shape)} that it made, in a cache or an object; a cache may be "
            "filled by one call before"
        )


def _generators(module: nn.Module, guard: Guard) -> list[torch.Generator]:
    """torch's generators that calls of a module can reach."""
    return generators_within([*guard.values(), *(value for part in module.modules() for value in vars(part).values())])


def _source(generator: Any) -> int:
    """The identity of a generator: several Python objects may stand for one."""
    return int(generator._cdata)


class _ReadWatcher(TorchFunctionMode):
    """Sets `reads_values` if the value of a tensor that is not traced is read."""

    def __init__(self, effects: SideEffects) -> None:
        super().__init__()
        self._effects = effects

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS and not isinstance(args[0], FakeTensor):
            self._effects.reads_values = True
        return func(*args, **(kwargs or {}))


@contextmanager
def _watch_seeding(effects: SideEffects) -> Iterator[None]:
    """Sets `asks_for_state` if torch's random numbers are seeded, or their state is read."""
    functions = {name: getattr(torch.random, name) for name in ("get_rng_state", "manual_seed")}

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            effects.asks_for_state = True
            return function(*args, **kwargs)

        return noted

    for name, function in functions.items():
        for place in (torch, torch.random):
            setattr(place, name, watched(function))
    try:
        yield
    finally:
        for name, function in functions.items():
            for place in (torch, torch.random):
                setattr(place, name, function)


def _restore(source: Any, before: Any) -> None:
    """Set a generator back to the state of its copy."""
    if isinstance(source, np.random.Generator):
        source.bit_generator.state = before.bit_generator.state
    elif isinstance(source, np.random.RandomState):
        source.set_state(before.get_state())
    else:
        source.setstate(before.getstate())
