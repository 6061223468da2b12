"""Curves, histograms and a graph of the layers for TensorBoard."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from fanin import arguments
from fanin.callbacks.base import Callback, Logs
from fanin.callbacks.learning_rate import rates
from fanin.layers.base.variables import named_weights


class TensorBoard(Callback):
    """Writes what training does to event files, for `tensorboard --logdir logs`.

    Args:
        log_dir: the folder, "logs" by default; the files lie in "train" and "validation" below it.
        histogram_freq: every how many epochs histograms of all weights are written; 0, the default, for never.
        write_graph: whether to write the layers as a graph. True by default. A model with a `call` of its own has none;
            nor has one without a config, because it holds plain torch modules: that warns.
        write_images: whether weights of one or two dimensions are written as pictures too, with the histograms.
        write_steps_per_second: whether to write how many steps a second are done.
        update_freq: "epoch"; or a number, then losses and metrics are also written every so many batches, where steps
            wait for them; "batch" is 1.
        profile_batch, embeddings_freq, embeddings_metadata: refused; torch.profiler and SummaryWriter do that.

    Written are "epoch_<name>" for each number of an epoch and "epoch_learning_rate", at steps counted in epochs;
    "batch_<name>" counted in batches; "evaluation_<name>_vs_iterations" for each evaluation, if the optimizer counts
    its iterations; "<model>/<layer>/<weight>/histogram" and "/image". Each epoch's are flushed to disk; the files are
    closed when training ends, also by an error.

    Raises ImportError without the tensorboard package, ValueError for another update_freq and what is refused. After
    Keras's `TensorBoard`.

    >>> import fanin, tempfile
    >>> model = fanin.Sequential([fanin.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = model.fit(torch.ones(4, 2), torch.ones(4), epochs=2, callbacks=TensorBoard(folder), verbose=0)
    ...     print(os.listdir(folder))
    ['train']
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ):
        super().__init__()
        if profile_batch:
            raise ValueError(f"TensorBoard: profile_batch must be 0, found {profile_batch!r}; use torch.profiler.")
        if embeddings_freq or embeddings_metadata:
            raise ValueError(
                "TensorBoard: embeddings_freq and embeddings_metadata are not supported; use torch's "
                "SummaryWriter.add_embedding."
            )
        every = arguments.frequency("TensorBoard: update_freq", update_freq, ("batch", "epoch"))
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = histogram_freq
        self.write_graph = write_graph
        self.write_images = write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = 1 if every == "batch" else every
        if every == "epoch":
            self.idle = (TensorBoard.on_train_batch_end,)
        self._writer_class = _writer_class()
        self._writers: dict[str, Any] = {}
        self._batches = 0

    # --- training ------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Write the graph of the layers."""
        self._batches = 0
        if self.write_graph:
            self._write_graph()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Note the time."""
        self._epoch_started = time.perf_counter()
        self._batches_before = self._batches

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Count."""
        self._batches += 1
        self._batch_started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Write the numbers so far, if it is time."""
        if self.update_freq == "epoch" or self._batches % int(self.update_freq):
            return
        numbers = dict(logs or {})
        if self.write_steps_per_second:
            numbers["steps_per_second"] = 1.0 / (time.perf_counter() - self._batch_started)
        self._write("train", {f"batch_{name}": value for name, value in numbers.items()}, self._batches)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the epoch's numbers, and histograms if it is time."""
        numbers = dict(logs or {})
        held_out = {name: numbers.pop(name) for name in list(numbers) if name.startswith("val_")}
        numbers.update(rates(self.model.optimizer))
        if self.write_steps_per_second:
            seconds = time.perf_counter() - self._epoch_started
            numbers["steps_per_second"] = (self._batches - self._batches_before) / seconds
        self._write("train", {f"epoch_{name}": value for name, value in numbers.items()}, epoch)
        if held_out:
            self._write("validation", {f"epoch_{name[4:]}": value for name, value in held_out.items()}, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(epoch)
        for writer in self._writers.values():
            writer.flush()

    # --- evaluation ----------------------------------------------------------------------------------------------

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Write the evaluation's numbers against the number of updates so far."""
        iterations = getattr(self.model.optimizer, "iterations", None)
        if iterations is not None:
            numbers = {f"evaluation_{name}_vs_iterations": value for name, value in (logs or {}).items()}
            self._write("validation", numbers, int(iterations))

    def teardown(self) -> None:
        """Close the files."""
        while self._writers:
            self._writers.popitem()[1].close()

    # --- writing -------------------------------------------------------------------------------------------------

    def _writer(self, folder: str) -> Any:
        """Opened when there is something to write."""
        if folder not in self._writers:
            self._writers[folder] = self._writer_class(os.path.join(self.log_dir, folder))
        return self._writers[folder]

    def _write(self, folder: str, numbers: Logs, step: int) -> None:
        for name, value in numbers.items():
            self._writer(folder).add_scalar(name, float(value), step)

    def _write_weights(self, epoch: int) -> None:
        writer = self._writer("train")
        for path, weight in _paths(self.model):
            values = weight.detach().float().cpu()
            finite = values[values.isfinite()]
            if finite.numel():
                writer.add_histogram(f"{path}/histogram", finite, epoch)
            if self.write_images and values.squeeze().ndim in (1, 2):
                writer.add_image(f"{path}/image", _picture(values.squeeze()), epoch)

    def _write_graph(self) -> None:
        """The config, as the graphs page of TensorBoard reads it from Keras."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto

        if not {kind.__name__ for kind in type(self.model).__mro__} & {"Sequential", "Functional"}:
            return  # what a `call` does is in no config
        try:
            config = self.model.to_json()
        except ValueError as error:
            warnings.warn(f"TensorBoard: no graph is written (write_graph=False says so): {error}", stacklevel=2)
            return
        plugin = SummaryMetadata.PluginData(plugin_name="graph_keras_model", content=b"1")
        tensor = TensorProto(dtype="DT_STRING", string_val=[config.encode()])
        value = Summary.Value(tag="keras", metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)
        self._writer("train").file_writer.add_summary(Summary(value=[value]), 0)


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            f"The TensorBoard callback needs the tensorboard package: pip install 'fanin[tensorboard]'. ({error})"
        ) from error
    return SummaryWriter


def _paths(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Each weight with the names of the layers that it lies in: "sequential/dense/kernel"."""
    for full, weight in named_weights(model):
        *keys, name = full.split(".")
        module, path = model, [model.name]
        for key in keys:
            module = module.get_submodule(key)
            layer = getattr(module, "name", key)
            path.append(layer if isinstance(layer, str) else key)
        yield "/".join([*path, name]), weight


def _picture(weight: torch.Tensor) -> torch.Tensor:
    """A weight as a grey picture (1, height, width), cut to [0, 1]: a vector upright, a matrix lying on its side."""
    matrix = weight[:, None] if weight.ndim == 1 else weight if weight.shape[0] <= weight.shape[1] else weight.T
    return matrix.nan_to_num(0.0).clamp(0, 1)[None]
