"""Between a model and a weights file: what to write, and a plan for reading that is checked before anything changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fanin.errors import MismatchError
from fanin.formats import low_rank, own
from fanin.formats.faults import Faults
from fanin.formats.hdf5 import Group, Reader, Spec, groups
from fanin.formats.hdf5_objects import Array
from fanin.layers.base.adapted import Adapted
from fanin.layers.base.layer import Layer
from fanin.optimizers import Optimizer


def check_built(model: nn.Module) -> None:
    """ValueError for a layer that is not built, and for a module with parts whose weights have no shape yet."""
    if isinstance(model, Layer):
        waiting = [] if model.built else [model.name]
    else:
        waiting = [name for name, part in model.named_modules() if isinstance(part, Layer) and not part.built]
        waiting += [name for name, value in model.named_parameters() if is_lazy(value)]
    if waiting:
        places = ", ".join(map(repr, waiting[:5]))
        raise ValueError(f"{type(model).__name__} has no weights yet at {places}: build it, or call it once.")


_VARIABLES, _ASSETS = ("save_own_variables", "load_own_variables"), ("save_assets", "load_assets")


def own_ways(model: nn.Module, optimizer: Any = None, assets: bool = False) -> str:
    """What is to be said of a part that keeps state in a way of its own, which nobody here calls; "" if none does.

    Layers have methods for variables; those of other modules and of optimizers, and with `assets` those that write
    files, count.
    """
    ways = [(part, _VARIABLES) for part in [*model.modules(), optimizer] if not isinstance(part, Layer)]
    ways += [(part, _ASSETS) for part in model.modules() if assets]
    for part, methods in ways:
        for method in methods:
            if callable(getattr(part, method, None)):
                name = getattr(part, "name", None)
                return (
                    f"{type(part).__name__} {name!r} defines {method}(), which fanin does not call, so its state would "
                    "be lost. Keep it in a weight, add_weight(trainable=False), or in get_config."
                )
    return ""


def check_ways(model: nn.Module, assets: bool = False) -> None:
    """NotImplementedError for a part of a model, or its optimizer, that keeps state in a way of its own."""
    fault = own_ways(model, own_optimizer(model), assets)
    if fault:
        raise NotImplementedError(f"Cannot save: {fault}")


def check_plain(model: nn.Module) -> None:
    """ValueError for a weight that torch computes from others: Keras's layout has a place for the plain one only."""
    for path, part in model.named_modules():
        for name, by, way_out in _computed_weights(part):
            shown = part.name if isinstance(part, Layer) else path
            raise ValueError(
                f"Layer {shown!r} cannot be saved: its weight {name!r} is computed at each call, by {by}. Make it "
                f"plain by torch.nn.utils.{way_out}, or save_weights to .safetensors, which holds it as it is."
            )


def _computed_weights(module: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Name, why, and how to make it plain, of the weights that a module computes."""
    if parametrize.is_parametrized(module):
        for name in module.parametrizations:  # type: ignore[union-attr]
            yield name, "a parametrization", f"parametrize.remove_parametrizations(layer, {name!r})"
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            yield hook._tensor_name, "pruning", f"prune.remove(layer, {hook._tensor_name!r})"
        elif isinstance(hook, WeightNorm):
            yield hook.name, "weight_norm", f"remove_weight_norm(layer, {hook.name!r})"
        elif isinstance(hook, SpectralNorm):
            yield hook.name, "spectral_norm", f"remove_spectral_norm(layer, {hook.name!r})"


def all_groups(model: nn.Module, optimizer: Optimizer | None) -> list[Group]:
    """What a weights file holds: the model's weights; the optimizer's iteration, learning rate and, if any, slots."""
    found = low_rank.with_adapters(own.as_saved(group) for group in groups(model))
    weights = [] if optimizer is None else _stepped(model, optimizer)
    path = "optimizer"
    while optimizer is not None:  # one inside another has its variables in both places, as in Keras's files
        found.append(Group(path, optimizer.name, optimizer.state_tensors(weights)))
        path, optimizer = f"{path}/inner_optimizer", getattr(optimizer, "inner_optimizer", None)
    return found


def own_optimizer(model: nn.Module) -> Optimizer | None:
    """The optimizer that a model was compiled with, if it is one of fanin's."""
    compiled = model.__dict__.get("_compiled_with")
    return compiled.optimizer if compiled is not None and isinstance(compiled.optimizer, Optimizer) else None


def _stepped(model: Any, optimizer: Optimizer) -> list[torch.Tensor]:
    """The weights that have slots."""
    weights: list[torch.Tensor] = model.trainable_variables if optimizer.built else []
    return weights


class Plan:
    """Which datasets go where. Making one changes nothing; after `faults` was heeded, `carry_out` cannot fail, unless a
    `load_own_variables` of the user's fails on a layer after it did its work on a copy.

    Args:
        model: a built model or module.
        reader: the file.
        optimizer: the optimizer whose state to read, or None.
        exact: whether the dtypes must be equal; if not, any floats will do for floats.
        skip: parts of the model to leave alone.

    Attributes:
        faults: what does not fit; the plan leaves whole layers out for it.
        note: why the optimizer's state is left out, or "".
    """

    def __init__(
        self,
        model: nn.Module,
        reader: Reader,
        optimizer: Optimizer | None = None,
        exact: bool = True,
        skip: Collection[nn.Module] = (),
    ):
        fault = own_ways(model, optimizer)
        if fault:
            raise MismatchError(fault)
        self.faults = Faults()
        self.note = ""
        self._model, self._reader, self._optimizer = model, reader, optimizer
        self._weights: list[tuple[torch.Tensor, Array, Spec]] = []
        self._own: list[tuple[Layer, own.Stored]] = []
        self._anew: list[Adapted] = []
        self._placed: dict[int, tuple[str, torch.Tensor]] = {}
        placed = list(groups(model, seen={id(part) for part in skip}))
        self._counts = Counter(id(tensor) for group in placed for tensor in group.tensors)
        for group in placed:
            with self.faults.noted():
                self._plan_group(group, exact)
        with self.faults.noted():
            reader.check_leftovers(groups(model))
        self._state: list[torch.Tensor] = []
        if optimizer is not None:
            with self.faults.noted():
                self._state = self._plan_state(optimizer)

    def _plan_group(self, group: Group, exact: bool) -> None:
        """One module's weights; its adapters, and the kernel without them, from their own place if they have one."""
        found: list[tuple[torch.Tensor, Array, Spec]] = []
        own_way = None
        if isinstance(group.owner, Layer) and group.owner._loads_itself():
            own_way = group.owner, own.Stored(self._reader, group.place)
            own.attempt(*own_way)
        else:
            found = self._checked(group, exact)
        apart = low_rank.apart_from(group)
        if apart is not None:
            assert isinstance(group.owner, Adapted)
            if group.owner._low_rank().merged is not None:
                raise MismatchError(f"{group.path}: the model has a merged adapter there: unmerge it before loading.")
            if self._reader.names(apart.place) is None:
                self._anew.append(group.owner)
            else:
                found += self._checked(apart, exact)  # written later, so the kernel is the one without adapters
        self._check_tied(group, found)
        self._weights += found
        self._own += [] if own_way is None else [own_way]

    def _check_tied(self, group: Group, found: list[tuple[torch.Tensor, Array, Spec]]) -> None:
        """MismatchError if a weight that the model has in several places has other values in one of them."""
        last = {id(tensor): (array, spec) for tensor, array, spec in found}
        shared = [(which, *last[which]) for which in last if self._counts[which] > 1]
        values = {which: self._reader.read(array, spec).reshape(-1).view(torch.uint8) for which, array, spec in shared}
        for which, value in values.items():
            path, first = self._placed.get(which, (group.path, value))
            if not torch.equal(first, value):
                raise MismatchError(f"{group.path} and {path} share a weight in the model, and differ in the file.")
        self._placed.update(
            (which, (group.path, value)) for which, value in values.items() if which not in self._placed
        )

    def _checked(self, group: Group, exact: bool) -> list[tuple[torch.Tensor, Array, Spec]]:
        specs = [spec_of(tensor, exact) for tensor in group.tensors]
        return list(zip(group.tensors, self._reader.check(group, specs), specs, strict=True))

    def _plan_state(self, optimizer: Optimizer) -> list[torch.Tensor]:
        """The optimizer's variables; [], with a note, if their number fits no state of it."""
        names = self._reader.names("optimizer/vars")
        if names is None:
            return []
        head, all_specs = optimizer_specs(optimizer, self._trainable())
        fitting = [specs for specs in (head, all_specs) if len(specs) == len(names)]
        if not fitting or (fitting[0] is head and optimizer.built and len(all_specs) > len(head)):
            self.note = left_out(optimizer, len(names))
            return []
        arrays = self._reader.check(Group("optimizer", None, []), fitting[0])
        values = [self._reader.read(array, spec) for array, spec in zip(arrays, fitting[0], strict=True)]
        check_head(optimizer, values)
        return values

    def _trainable(self) -> list[torch.Tensor]:
        weights: list[torch.Tensor] = self._model.trainable_variables  # type: ignore[assignment]
        return weights

    def carry_out(self) -> None:
        """Write all values into the model and the optimizer."""
        for own_way in self._own:
            own.load(*own_way)
        with torch.no_grad():
            for tensor, array, spec in self._weights:
                tensor.copy_(self._reader.read(array, spec))
        for layer in self._anew:
            low_rank.start_anew(layer)
        if self._optimizer is not None and self._state:
            set_optimizer(self._optimizer, self._trainable(), self._state)


def spec_of(tensor: torch.Tensor, exact: bool) -> Spec:
    """What a dataset for this weight must be. Counts may have another width: Keras on TensorFlow takes 64 bits."""
    is_count = tensor.dtype == torch.int32
    return Spec(tuple(tensor.shape), tensor.dtype, not is_count and (exact or not tensor.dtype.is_floating_point))


# --- the optimizer ----------------------------------------------------------------------------------------------------


def optimizer_specs(optimizer: Optimizer, weights: list[torch.Tensor]) -> tuple[list[Spec], list[Spec]]:
    """What an optimizer's variables must be: before the first step, and after it."""
    return [Spec(*spec) for spec in optimizer.specs([])], [Spec(*spec) for spec in optimizer.specs(weights)]


def check_head(optimizer: Optimizer, values: list[torch.Tensor]) -> None:
    """MismatchError unless iteration and learning rate are numbers that an optimizer can have."""
    try:
        optimizer.check_head(values)
    except (TypeError, ValueError) as error:
        raise MismatchError(f"the state of the optimizer: {error}") from None


def set_optimizer(optimizer: Optimizer, weights: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    """Give an optimizer its state."""
    has_slots = len(values) > len(optimizer.specs([]))
    if has_slots:
        optimizer.build(weights)
    optimizer.set_state(weights if has_slots else [], values)


def left_out(optimizer: Optimizer, count: int) -> str:
    """Why a state of `count` variables is not read."""
    return (
        f"The state of the optimizer {optimizer.name!r} is left out: the file has {count} variables, which do not fit "
        "the weights that train. It was saved before the first step, after weights were frozen or thawed, or with "
        "weights that are tied in only one of the two models."
    )
