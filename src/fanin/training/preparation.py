"""Before a pass over data: check arguments, read the data, build the model, check the targets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch

from fanin import arguments
from fanin.errors import DataError
from fanin.graph.tree import tree_map
from fanin.kernels.rows import rows_key
from fanin.layers.base.devices import device_of
from fanin.layers.base.modes import in_eval_mode, state_kept
from fanin.training.compiled import Compiled
from fanin.training.data import Arrays, Batch, Stream, on_device
from fanin.training.locks import lock_of
from fanin.training.reader import Reader
from fanin.training.trainer import Trainer, overrides

NO_BATCH = "The data gave no batch: there is nothing to {}. A generator that has run out gives none in a later pass."


def reader(
    model: Any, class_weight: Any = None, batch_size: int = 32, shuffle: bool = False, finite: bool = True,
    stays: bool = True,
) -> Reader:  # fmt: skip
    """A reader for a model: data that stays goes to the model's device at once, other data batch by batch."""
    device = device_of(model)
    home = device if stays or device.type == "cpu" else None
    return Reader(model.dtype_policy.variable, home, class_weight, finite, batch_size, shuffle)


def validation(model: Any, size: int, given: Any) -> Arrays | Stream:
    """The data of `validation_data`: (x, y) or (x, y, sample_weight), or what can be iterated over. Each validation
    scores the same batches, also of a generator."""
    found = reader(model, None, size)
    read = found.read(*given) if isinstance(given, (tuple, list)) else found.read(given)
    return read.keep() if isinstance(read, Stream) else read


def validates(frequency: Any) -> Callable[[int], bool]:
    """Whether an epoch, counted from 1, ends with a validation: every so many do, or those of a list."""
    if isinstance(frequency, (list, tuple, set, range)):
        return frozenset(frequency).__contains__
    every = arguments.positive("validation_freq", frequency)
    return lambda epoch: epoch % every == 0


def trainer(model: Any, compiled: Compiled, data: Arrays | Stream, name: str, trains: bool = False) -> Trainer:
    """Build the model for the data's shape, bind losses and metrics, and check the targets; returns the trainer."""
    model._see_all_children()
    x, y = (data.x, data.y) if isinstance(data, Arrays) else data.peek()[:2]
    if trains and not compiled.has_optimizer and not overrides(model, "train_step"):
        raise ValueError(f"Model {model.name!r} was compiled without an optimizer: it can be evaluated, not trained.")
    if y is None and compiled.has_loss:
        raise DataError(
            f"{name} is missing: the loss needs targets. x and y are two arguments, unless a DataLoader, a Dataset or "
            "a generator gives batches (x, y)."
        )
    if isinstance(data, Arrays) and data.rows == 0:
        raise DataError(f"The data is empty: there is nothing to {'train on' if trains else 'evaluate'}.")
    if not model.built:
        model.build(tree_map(lambda leaf: (None, *leaf.shape[1:]), x))
    try:
        with lock_of(model):
            output_shape = _output_shape(model, x)
    except NotImplementedError:  # it has no `call`, which its own step may not need
        if not overrides(model, "train_step"):
            raise
        return Trainer(model, compiled, None)
    if trains and not overrides(model, "train_step"):
        _check_weights(model, compiled.optimizer)
    compiled.bind(model, output_shape, y)
    check_targets(compiled, data, name)
    return Trainer(model, compiled, output_shape)


def _check_weights(model: Any, optimizer: Any) -> None:
    """A warning where nothing trains; ValueError for one of torch.optim's optimizers that was made of weights none of
    which this model trains."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    if not trained and rows_key() is None:  # a block of `fanin.adapters.rows` lets its adapters train
        warnings.warn(f"Model {model.name!r} has no weights that train: fit leaves them as they are.", stacklevel=6)
    if not isinstance(optimizer, torch.optim.Optimizer):
        return
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    if trained and held.isdisjoint(map(id, trained)):
        raise ValueError(
            f"Model {model.name!r}: its optimizer, {type(optimizer).__name__}, holds none of the {len(trained)} "
            "weights that train. Make it of model.parameters(), once the model is as it shall be, and compile again."
        )


def _output_shape(model: Any, x: Any) -> Any:
    """The shapes of the outputs for this data; if the model cannot tell, it is run on the first rows."""
    try:
        return model.compute_output_shape(tree_map(lambda leaf: (None, *leaf.shape[1:]), x))
    except ValueError:
        if model._says_shape() and model._network is None:
            raise
    with in_eval_mode(model.modules()), state_kept(model), torch.no_grad():
        outputs = model(tree_map(lambda leaf: leaf[:2].to(device_of(model)), x))
    return tree_map(lambda leaf: (None, *leaf.shape[1:]), outputs)


def check_targets(compiled: Compiled, data: Arrays | Stream, name: str) -> None:
    """DataError for targets that cannot be learned: now, or for a stream when they are read."""
    if isinstance(data, Arrays):
        compiled.check_targets(data.y, name)
    else:  # `peek` has read the first batch; later ones are checked when they are read
        data.check = lambda batch, where: compiled.check_targets(batch.y, f"{where}: {name}")
        data.check(data.peek(), "batch 0")


def batches(
    data: Arrays | Stream, batch_size: int, shuffle: bool, steps: int | None = None, reuse: bool = False
) -> Iterator[Batch]:
    """One pass over data, or so many steps of it."""
    source = data.batches(batch_size, shuffle, reuse) if isinstance(data, Arrays) else data.batches()
    return source if steps is None else islice(source, steps)


def batches_once(model: Any, data: Arrays | Stream, batch_size: int, steps: int | None) -> Iterator[Batch]:
    """The batches of data that was not moved beforehand, each moved to the model's device."""
    found, device = batches(data, batch_size, False, steps), device_of(model)
    return found if device.type == "cpu" else on_device(found, device)


def endless(data: Arrays | Stream, batch_size: int, shuffle: bool) -> Iterator[Batch]:
    """Batches pass after pass, for epochs that are counted in steps."""
    while True:
        found = False
        for batch in batches(data, batch_size, shuffle):
            found = True
            yield batch
        if not found:
            return


def steps(data: Arrays | Stream, batch_size: int, asked: int | None, name: str = "steps") -> int | None:
    """The number of steps of a pass, if it is known; `name` is that of the argument."""
    if asked is not None:
        return arguments.positive(name, asked)
    return data.steps(batch_size) if isinstance(data, Arrays) else data.steps()
