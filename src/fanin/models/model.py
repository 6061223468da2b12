"""What every model can do beyond a layer: compile, fit, evaluate, predict, save. Each is a short delegation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from fanin.dtypes import as_policy
from fanin.formats import archive, onnx, weights
from fanin.models.compiling import Compiling
from fanin.models.graph_config import describe, rebuild
from fanin.models.network import Network
from fanin.models.summary import print_summary
from fanin.registry import Family, custom_object_scope, serialize, sharing
from fanin.training import loop


class Model(Compiling):
    """A layer that can be trained: a graph, `Model(inputs, outputs)`, or a subclass with a `call` of its own.

    Args:
        inputs: what `fanin.Input` returned: one, or a nested list, tuple or dict.
        outputs: symbolic tensors computed from them, likewise.
        name: default "functional" for a graph, else the class name in snake case, made unique.
        trainable: whether the weights train.
        **kwargs: dtype and the other arguments of a layer.

    A graph is checked once and lowered to straight-line code that calls only the layers it needs. A subclass sets its
    layers as attributes (lists of layers too) and writes `call`. Models are in eval mode except inside `fit` and
    `train_on_batch`; `state_dict` keys of a graph are positions, input layers not counted: "0.kernel".

    Raises ValueError for an input that is not an Input or comes twice, an output that is not a symbolic tensor or
    depends on other Inputs, and two layers of one name. After Keras's `Model`.

    >>> from fanin.layers import Dense, Input, concatenate
    >>> one, two = Input((4,), name="one"), Input((3,), name="two")
    >>> both = concatenate([Dense(8, activation="relu")(one), two])
    >>> model = Model([one, two], Dense(2)(both))
    >>> model.output_shape
    (None, 2)
    """

    stop_training = stop_evaluating = stop_predicting = False  # set by callbacks: fit, evaluate, predict then end
    _initial_epoch = _initial_batch = 0  # where fit begins; a callback's `on_train_begin` may set them

    def __new__(cls, *args: Any, **kwargs: Any) -> Model:
        """`Model(inputs, outputs)` makes a `Functional`."""
        graph = cls is Model and (args or "inputs" in kwargs or "outputs" in kwargs)
        made: Model = super().__new__(Functional if graph else cls, *args, **kwargs)
        return made

    def __init__(self, *args: Any, **kwargs: Any):
        graph = dict(zip(("inputs", "outputs", "name"), args, strict=False))
        twice = [key for key in graph if key in kwargs]
        if twice:
            raise TypeError(f"{type(self).__name__} got {twice[0]} twice.")
        if len(args) > 3:
            raise TypeError(f"{type(self).__name__} takes inputs, outputs and a name, found {len(args)} arguments.")
        graph |= {key: kwargs.pop(key) for key in ("inputs", "outputs", "name") if key in kwargs}
        if not isinstance(kwargs.get("trainable", True), (bool, np.bool_)):
            raise TypeError(f"{type(self).__name__}: trainable is True or False, found {kwargs['trainable']!r}.")
        super().__init__(name=graph.pop("name", None), **kwargs)
        self.eval()
        if graph:
            if set(graph) != {"inputs", "outputs"}:
                raise TypeError(f"Model {self.name!r}: give inputs and outputs, found only {', '.join(graph)}.")
            self._connect(Network(graph["inputs"], graph["outputs"], f"Model {self.name!r}"))
            if not self.__dict__["_trainable"]:
                self.trainable = False

    def __setattr__(self, name: str, value: Any) -> None:
        """As a layer's; a part that is set takes the model's train or eval mode."""
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            value.train(self.training)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> Any:
        """Train, and return the `History`: `history.history["loss"]` holds one number for each epoch.

        Args:
            x: arrays or tensors (N, ...), of several inputs a list or dict; a data frame; a Dataset, a DataLoader, or a
                generator of (x, y) or (x, y, sample_weight).
            y: the targets, if x is arrays; of several outputs a list or dict.
            batch_size: 32 unless given; the shorter last batch is kept.
            epochs: the number of the last epoch.
            verbose: 0 silent, 1 a bar ("auto"), 2 one line for each epoch; without a terminal, plain lines.
            callbacks: one or more Callback objects; torch's learning-rate schedulers too, which step after each epoch.
            validation_split: the last fraction of the arrays is held out, before shuffling.
            validation_data: (x, y), (x, y, sample_weight), a DataLoader, a Dataset, or a generator, whose batches are
                kept and scored again; an endless one needs `validation_steps`.
            shuffle: arrays in a new order each epoch.
            class_weight: class -> weight, for one output; a class that is missing weighs 1.
            sample_weight: one weight for each row (N,), or for each step of it (N, T); of several outputs a list or
                dict.
            initial_epoch: where to go on.
            steps_per_epoch: batches in an epoch; needed for an endless generator.
            validation_steps: how many batches a validation looks at; None for all.
            validation_batch_size: as `batch_size` unless given.
            validation_freq: a validation after every so many epochs, or a list of the epochs, counted from 1.

        Raises DataError for data that would spoil the weights, naming the row: NaN, Inf, labels out of range.
        """
        return loop.fit(
            self, self._compiled(), x, y, batch_size=batch_size, epochs=epochs, verbose=verbose, callbacks=callbacks,
            validation_split=validation_split, validation_data=validation_data, shuffle=shuffle,
            class_weight=class_weight, sample_weight=sample_weight, initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch, validation_steps=validation_steps,
            validation_batch_size=validation_batch_size, validation_freq=validation_freq,
        )  # fmt: skip

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Loss, penalties included, and metrics over data: a number, a list as in `metrics_names`, or a dict.

        Args:
            x, y, sample_weight: as for `fit`.
            batch_size: 32 unless given.
            verbose: as for `fit`.
            steps: how many batches; None for all.
            callbacks: one or more Callback objects.
            return_dict: whether to return a dict by name.
        """
        logs = loop.evaluate(
            self, self._compiled(), x, y, batch_size=batch_size, verbose=verbose, sample_weight=sample_weight,
            steps=steps, callbacks=callbacks,
        )  # fmt: skip
        return _returned(logs, return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        out: Any = None,
        deterministic: bool = False,
    ) -> Any:
        """The outputs for x (N, ...), as a numpy array (N, ..., U); (0, ..., U) for no rows.

        Args:
            x: arrays or tensors (N, ...), a DataLoader, or a generator.
            batch_size: the most rows that are worked on at once. None: as many as suit the processor's caches, where
                it is sure that rows do not see each other, else 32.
            verbose: as for `fit`; 0 with a single small array takes the shortest way.
            steps: how many batches; None for all.
            callbacks: one or more Callback objects.
            out: an array, or a structure of arrays like the outputs, to write into, such as a numpy.memmap: memory
                then stays constant however many rows there are. It is returned.
            deterministic: whether a row's outputs shall be the same bits whatever rows stand beside it. Rows then go
                in tiles of 32, also a single one, or one by one where products need it: several times as long.
        """
        return loop.predict(self, x, batch_size, verbose, steps, callbacks, out, deterministic)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One step on one batch; returns the loss before the update, and the metrics.

        Args:
            x, y, sample_weight, class_weight: as for `fit`, all rows in one batch.
            return_dict: whether to return a dict by name; else a number, or a list as in `metrics_names`.
        """
        logs = loop.train_on_batch(self, self._compiled(), x, y, sample_weight, class_weight)
        return _returned(logs, return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss and metrics on one batch."""
        return _returned(loop.test_on_batch(self, self._compiled(), x, y, sample_weight), return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch, as a numpy array."""
        return loop.predict_on_batch(self, x)

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Callable[[str], None] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Print a table of layers, output shapes and numbers of weights.

        Args:
            line_length: the width in characters; default the terminal's.
            positions: kept for Keras; columns are as wide as they need to be.
            print_fn: gets the text instead of standard output.
            expand_nested: whether the layers of models within the model are listed too.
            show_trainable: whether a column says which layers train.
            layer_range: regular expressions (first, last): only layers from the first name that the one matches to the
                last that the other does. As in Keras "dense" matches "dense_1" too, and "dense$" does not. The sums
                stay those of the whole model.
        """
        print_summary(self, line_length, print_fn, expand_nested, show_trainable, layer_range)

    @classmethod
    def _is_described_by_arguments(cls) -> bool:
        return cls.get_config is Model.get_config and cls.__init__ is not Model.__init__

    def get_config(self) -> dict[str, Any]:
        """The graph, with its layers and their configs, as plain JSON data in Keras's form; else the arguments."""
        self._see_all_children()
        if self._network is None or self._is_described_by_arguments():
            return super().get_config()
        own: dict[str, Any] = {"name": self.name, "trainable": self.trainable}
        if self.dtype_policy.name != "float32":  # Keras's models do without, and pass it over
            own["dtype"] = serialize(self.dtype_policy)
        return own | describe(self._network, Functional)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """A model with new weights from what `get_config` gave; Keras 2's and 3's configs too."""
        with custom_object_scope(custom_objects):
            if "input_layers" not in config:
                return super().from_config(config)
            inputs, outputs = rebuild(config, models, Functional)
            model = cls(inputs, outputs, name=config.get("name"))
        if config.get("dtype") is not None:
            model.dtype_policy = as_policy(config["dtype"])
        if config.get("trainable") is False:
            model.trainable = False
        return model

    def get_build_config(self) -> dict[str, Any] | None:
        """As a layer's; a graph knows its shapes."""
        return None if self._network is not None else super().get_build_config()

    def to_json(self, **kwargs: Any) -> str:
        """The architecture and how it was compiled as JSON, in Keras's form; kwargs go to json.dumps."""
        with sharing():
            config = serialize(self) | self.described_compile()
        return json.dumps(config, **kwargs)

    def save(self, filepath: Any, overwrite: bool = True) -> None:
        """Write the model to a `.keras` archive that Keras reads too: architecture, weights, compile information.

        The file is replaced only once the new one is complete. An existing file with overwrite=False is a ValueError.
        """
        self._see_all_children()
        archive.save_model(self, filepath, overwrite=overwrite)

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Write the weights: to `.weights.h5` as Keras does, or to `.safetensors` under the names of `state_dict`."""
        weights.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Read weights that `save_weights` wrote, here or in Keras, or a legacy `.h5`. A failed load changes nothing.

        Args:
            filepath: `.weights.h5`, `.safetensors` or `.h5`.
            skip_mismatch: whether weights that do not fit are left out, with a warning that lists them.
            **kwargs: by_name=True, for a legacy `.h5`.
        """
        weights.load_weights(self, filepath, skip_mismatch, **kwargs)

    def export(self, filepath: Any, format: str = "onnx", **kwargs: Any) -> None:
        """Write the prediction to an ONNX file with a dynamic batch; needs `pip install 'fanin[onnx]'`.

        Args:
            filepath: the file, "model.onnx"; Keras's export makes a folder unless told otherwise.
            format: "onnx".
            **kwargs: as for `fanin.formats.onnx.export_onnx`.
        """
        if format != "onnx":
            raise ValueError(f"export: format must be 'onnx', found {format!r}.")
        onnx.export_onnx(self, filepath, **kwargs)


models: Family[Model] = Family("model", "keras", Model)


@models.entry("Model", module="keras.src.models.functional")
class Functional(Model):
    """What `fanin.Model(inputs, outputs)` returns: the graph between two ends."""


def _returned(logs: dict[str, float], return_dict: bool) -> Any:
    if return_dict:
        return logs
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
