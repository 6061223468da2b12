"""Training that goes on where it was interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fanin import arguments
from fanin.callbacks.base import Callback, Logs
from fanin.errors import FormatError
from fanin.layers.base.seed import Seed
from fanin.write import replacing

_LIST = "training_metadata.json"


class BackupAndRestore(Callback):
    """Keeps the state of training in a folder; a `fit` that was interrupted goes on from there when it is run again.

    Args:
        backup_dir: the folder, for this training alone; it is made if it is missing.
        save_freq: "epoch", or a number of batches. "epoch" by default.
        double_checkpoint: whether the state before the last is kept too, and taken if the last cannot be read. False by
            default.
        delete_checkpoint: whether the end of training removes what it wrote. True by default.

    A state is the weights, the state of fanin's optimizers, torch's random state and that of seeded layers, epoch and
    batch: so training ends with the weights that it would have had, if the data comes in the same order by torch's
    random numbers or none. What other callbacks count (`EarlyStopping`, `ReduceLROnPlateau`) begins anew, the numbers
    of the first epoch are those of its remaining batches, and data counted by `steps_per_epoch` begins at its first
    batch. Put it last among the callbacks: what others change at the end of an epoch is kept then.

    A state is whole or not there: it counts once the list of states, written last, names it. Raises ValueError for an
    empty backup_dir, another save_freq and, before training, an optimizer of torch.optim, whose state it does not keep;
    FormatError or OSError for states that cannot be read. After Keras's `BackupAndRestore`.

    >>> import fanin, tempfile
    >>> def fit(folder, *callbacks):
    ...     model = fanin.Sequential([fanin.layers.Dense(1)])
    ...     model.compile("adam", "mse")
    ...     callbacks = [*callbacks, BackupAndRestore(folder)]
    ...     return model.fit(torch.ones(4, 2), torch.ones(4), epochs=5, callbacks=callbacks, verbose=0).epoch
    >>> class PowerCut(Callback):
    ...     def on_epoch_begin(self, epoch, logs=None):
    ...         if epoch == 3:
    ...             raise RuntimeError("no power")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with contextlib.suppress(RuntimeError):
    ...         fit(folder + "/backup", PowerCut())
    ...     fit(folder + "/backup")
    [3, 4]
    """

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ):
        super().__init__()
        if not os.fspath(backup_dir):
            raise ValueError("BackupAndRestore: backup_dir is empty, expected the path of a folder.")
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq = arguments.frequency("BackupAndRestore: save_freq", save_freq)
        if self.save_freq == "epoch":
            self.idle = (BackupAndRestore.on_train_batch_begin,)
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint

    # --- when ----------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Bring back the last state, if there is one."""
        if isinstance(self.model.optimizer, torch.optim.Optimizer):
            raise ValueError(
                f"BackupAndRestore keeps the state of fanin's optimizers; that of torch.optim's "
                f"{type(self.model.optimizer).__name__} would be lost. Take the one of fanin.optimizers."
            )
        self._epoch, self._batches = 0, 0
        self._random_of_epoch: Any = None
        self._resumed: dict[str, Any] | None = None
        self._states = self._read_list()
        while self._states:
            try:
                self._restore(self._states[0])
                break
            except (FormatError, OSError) as error:
                if len(self._states) == 1:
                    raise
                warnings.warn(f"BackupAndRestore takes the state before the last: {error}", stacklevel=2)
                del self._states[0]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Note the random state that the order of the rows comes from."""
        if self._resumed is not None:
            _set_random_state(self.model, self._resumed["random_of_epoch"])
        self._epoch, self._random_of_epoch = epoch, _random_state(self.model)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Save what the batches so far came to, if it is time."""
        if self._resumed is not None:
            _set_random_state(self.model, self._resumed["random"])
        elif batch:
            self._batches += 1
            if self._batches == self.save_freq:
                self._save(self._epoch, batch)
        self._resumed = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save, if it is time."""
        self._batches += 1
        if self._batches == self.save_freq or self.save_freq == "epoch":
            self._save(epoch + 1, 0)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Remove the states."""
        if self.delete_checkpoint:
            self._keep([])
            with contextlib.suppress(OSError):  # not empty: something else is there
                os.rmdir(self.backup_dir)

    # --- files -----------------------------------------------------------------------------------------------------

    def _save(self, epoch: int, batch: int) -> None:
        os.makedirs(self.backup_dir, exist_ok=True)
        state = {
            "epoch": epoch,
            "batch": batch,
            "weights": f"{epoch}-{batch}.weights.h5",
            "random": _random_state(self.model),
            "random_of_epoch": self._random_of_epoch,
        }
        self.model.save_weights(self._path(state["weights"]), overwrite=True)
        others = [one for one in self._states if one["weights"] != state["weights"]]
        self._keep([state, *others[: 1 if self.double_checkpoint else 0]])
        self._batches = 0

    def _keep(self, states: list[dict[str, Any]]) -> None:
        """Let the list name these states, and remove the files of others."""
        known, self._states = self._states, states
        if states:
            with replacing(self._path(_LIST)) as file:
                file.write(json.dumps({"states": states}).encode())
        else:
            Path(self._path(_LIST)).unlink(missing_ok=True)
        for name in {one["weights"] for one in known} - {one["weights"] for one in states}:
            Path(self._path(name)).unlink(missing_ok=True)

    def _read_list(self) -> list[dict[str, Any]]:
        path = self._path(_LIST)
        if not os.path.exists(path):
            return []
        try:
            with open(path, encoding="utf-8") as file:
                states = json.load(file)["states"]
            good = all(_is_state(one) for one in states)
        except (ValueError, LookupError, TypeError):
            good = False
        if not good:
            raise FormatError(f"{path}: not a list of states that BackupAndRestore wrote. Remove it to begin anew.")
        return list(states)

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_weights(self._path(state["weights"]))
        self.model._initial_epoch, self.model._initial_batch = state["epoch"], state["batch"]
        if state["batch"]:
            self._resumed = state
        else:
            _set_random_state(self.model, state["random"])

    def _path(self, name: str) -> str:
        return os.path.join(self.backup_dir, name)


def _is_state(state: Any) -> bool:
    """Whether this is a state as `_save` writes it; its file is in the folder."""
    epoch, batch = state["epoch"], state["batch"]
    whole = type(epoch) is int and epoch >= 0 and type(batch) is int and batch >= 0
    return whole and state["weights"] == f"{epoch}-{batch}.weights.h5" and {"random", "random_of_epoch"} <= {*state}


# --- random numbers -------------------------------------------------------------------------------------------------


def _random_state(model: Any) -> dict[str, str]:
    """The states of torch's generators, and of the layers' own, by name."""
    return {name: generator.get_state().numpy().tobytes().hex() for name, generator in _generators(model)}


def _set_random_state(model: Any, states: dict[str, str]) -> None:
    for name, generator in _generators(model):
        if name in states:
            generator.set_state(torch.frombuffer(bytearray.fromhex(states[name]), dtype=torch.uint8))


def _generators(model: Any) -> Iterator[tuple[str, torch.Generator]]:
    yield "cpu", torch.default_generator
    devices = {weight.device for weight in model.parameters()}
    if torch.cuda.is_available():
        yield from ((f"cuda:{number}", one) for number, one in enumerate(torch.cuda.default_generators))
    for path, layer in model.named_modules():
        for name, value in vars(layer).items():
            for device in devices if isinstance(value, Seed) else ():
                generator = value.generator(device)
                if generator is not None:
                    yield f"{path}.{name} {device}", generator
